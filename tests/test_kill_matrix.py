"""Forty kills: whatever a run was doing, the resumed one is the one that nobody has killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kills import OWN, points
from tests.test_resume import (
    MEASURED,
    ROOT,
    assert_same_checkpoints,
    scalars,
    timeless,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

#: Parts of a report that are measured anew by each process, or name its folder.
ANEW = ("time", "settings", "machine")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of all runs of an algorithm, by its name."""

    @cache
    def run_all(algorithm: str) -> Path:
        folder = tmp_path_factory.mktemp(algorithm)
        command = [sys.executable, "-m", "tests.kills", algorithm, str(folder)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run(command, check=True, env=environment, cwd=ROOT)
        return folder

    return run_all


def report(run: Path) -> dict[str, Any]:
    """The report of a run without what is measured."""
    written = json.loads((run / "report" / "report.json").read_text())
    for part in ANEW:
        written.pop(part)
    written["memory_table"] = written["memory_table"] is not None
    written["evaluations"] = timeless(written["evaluations"])
    for moment in ("before", "after"):
        written[moment] = timeless([written[moment]])
    written["history"] = {
        key: column
        for key, column in written["history"].items()
        if not any(word in key for word in MEASURED)
    }
    return written


def files(run: Path, *folders: str) -> dict[str, bytes]:
    """The content of every file in some folders of a run."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for folder in folders
        for path in sorted((run / folder).rglob("*"))
        if path.is_file()
    }


@pytest.mark.fault(
    "Runs that stop and go on",
    "SIGKILL at 40 points of GRPO, SFT, DiffRO and both: in steps, evaluations, saves, at the end",
    "resumed, each is the run that nobody killed: weights, evaluations, best, report, export, curves",
)
@pytest.mark.parametrize(
    ("algorithm", "point"), [(algorithm, point) for algorithm in OWN for point in points(algorithm)]
)
def test_killed_and_resumed_is_the_whole_run(
    runs: Callable[[str], Path], algorithm: str, point: str
) -> None:
    folder = runs(algorithm)
    codes = json.loads((folder / "codes.json").read_text())
    said = (folder / f"{point}.log").read_text()[-3000:]
    assert codes["whole"] == [0], (folder / "whole.log").read_text()[-3000:]
    assert codes[point] == [-signal.SIGKILL, 0], said

    whole, resumed = folder / "whole" / "run", folder / point / "run"
    for name in ("last", "best"):
        assert_same_checkpoints(*(run / "checkpoints" / f"{name}.ckpt" for run in (whole, resumed)))
    ours, theirs = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
        for run in (whole, resumed)
    )
    assert repr(ours["RLCheckpoint"]) == repr(theirs["RLCheckpoint"])
    assert repr(ours["HackingWatch"]) == repr(theirs["HackingWatch"])
    assert report(resumed) == report(whole)
    assert scalars(resumed) == scalars(whole)
    written = files(whole, "export", "export_best", "audio")
    assert any(name.endswith(".safetensors") for name in written)
    assert files(resumed, "export", "export_best", "audio") == written
    assert sorted(path.name for path in (resumed / "checkpoints").iterdir()) == sorted(
        path.name for path in (whole / "checkpoints").iterdir()
    )
