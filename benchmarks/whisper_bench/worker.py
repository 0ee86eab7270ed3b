"""A process that runs one side: it is told which case to open, and then every single step."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

#: What may step, in the order of the table.
SYSTEMS = ("ours", "ours_kept", "naive", "naive_all")


def main() -> None:
    """Answer {"do": "open", "case": ..., "steps": ...} and what `grpo_bench.driver.Driver` knows."""
    system = sys.argv[1]
    threads = int(sys.argv[2])
    torch.set_num_threads(threads)
    answers = os.fdopen(os.dup(1), "w")
    # What libraries print must not be taken for an answer.
    os.dup2(2, 1)

    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from grpo_bench.driver import Driver

    from whisper_bench.case import WhisperCase

    driver = Driver(sys.stdin, answers, "cpu")
    command = driver.read()
    case = WhisperCase(**command["case"])
    if system.startswith("ours"):
        from whisper_bench import ours

        ours.serve(case, driver, keeps=command["steps"] + 1 if system == "ours_kept" else 0)
        return
    from whisper_bench import naive

    naive.serve(case, driver, trains_encoder=system == "naive_all")


if __name__ == "__main__":
    main()
