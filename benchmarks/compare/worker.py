"""Runs ``audiorl fit`` for a list of jobs, with the build that PYTHONPATH names; in as many processes as they want.

    python worker.py ROOT JOBS.json

A job is ``{"folder": ..., "args": [...], "devices": ...}``: it runs inside its folder, and leaves ``done`` there or the
traceback as ``error``. A job whose folder is called fixtures makes these.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import torch


def run(job: dict[str, Any]) -> None:
    """One job, in this process."""
    folder = Path(job["folder"])
    os.chdir(folder)
    if job["args"] == ["fixtures"]:
        sys.path.insert(0, str(Path(__file__).parent))
        from fixtures import make

        make(folder)
    else:
        from lightning_audiorl.cli import main as audiorl

        audiorl(job["args"])


def main() -> None:
    root, jobs = sys.argv[1:]
    import lightning_audiorl

    if not Path(lightning_audiorl.__file__).is_relative_to(Path(root)):
        raise SystemExit(
            f"the build of {root} was asked for, and {lightning_audiorl.__file__} was imported"
        )
    torch.set_num_threads(1)
    is_first = int(os.environ.get("LOCAL_RANK", 0)) == 0
    for job in json.loads(Path(jobs).read_text()):
        folder = Path(job["folder"])
        try:
            run(job)
        except BaseException:
            if is_first or not (folder / "error").exists():
                (folder / "error").write_text(traceback.format_exc())
            if job["devices"] > 1:  # the other processes may wait for this one: they end with it
                raise
        else:
            if is_first:
                (folder / "done").touch()


if __name__ == "__main__":
    main()
