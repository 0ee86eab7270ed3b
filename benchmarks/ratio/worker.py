"""A process that runs ``audiorl fit`` with the build that PYTHONPATH names, one step at a time, on command.

    python worker.py THREADS

The first line on stdin is ``{"do": "open", "config": PATH}``; the others are what `grpo_bench.driver.Driver` knows. The
settings have `ratio.stepper.Stepper` among the trainer's callbacks.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch


def main() -> None:
    """Entry point."""
    torch.set_num_threads(int(sys.argv[1]))
    # The command line gets its arguments below, and would warn of these.
    del sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    # What a run prints must not be taken for an answer.
    os.dup2(2, 1)

    # Behind the build, which has a folder of benchmarks of its own.
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from grpo_bench.driver import Driver

    from lightning_audiorl.cli import main as audiorl
    from ratio.stepper import Stepper

    Stepper.driver = Driver(sys.stdin, answers, "cpu")
    config = Stepper.driver.read()["config"]
    audiorl(["fit", "--config", config])


if __name__ == "__main__":
    main()
