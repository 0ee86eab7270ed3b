"""The ratio of two builds' times has a fair interval; the script times a build beside itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from compare.scenarios import scenarios  # noqa: E402
from ratio.cases import FIT_CASES  # noqa: E402
from ratio.intervals import Pair, ratio  # noqa: E402


def test_ratio_is_that_of_the_medians() -> None:
    measured = ratio([[Pair(1.0, 2.0), Pair(2.0, 3.0), Pair(9.0, 4.0)]])
    assert (measured.base, measured.present, measured.value) == (2.0, 3.0, 1.5)
    assert measured.low < 1.5 < measured.high


def test_slower_is_what_the_whole_interval_says() -> None:
    same = ratio([[Pair(1.0, 0.9), Pair(1.0, 1.0), Pair(1.0, 1.3)]])
    assert not same.is_slower(1.02)
    slower = ratio([[Pair(1.0, 1.05), Pair(2.0, 2.1), Pair(3.0, 3.15)]])
    assert slower.low > 1.02
    assert slower.is_slower(1.02)
    assert not slower.is_slower(1.06)


def test_rounds_that_disagree_widen_the_interval() -> None:
    """Many steps in two processes of which one is slow tell no more than two processes do."""
    measured = ratio([[Pair(1.0, 1.0)] * 50, [Pair(1.0, 1.1)] * 50])
    assert measured.low == 1.0
    assert measured.high == pytest.approx(1.1)


def test_fit_cases_are_endless_scenarios() -> None:
    for case in FIT_CASES.values():
        text = case.text("/fixtures", "/out")
        assert case.scenario in scenarios()
        assert "ratio.stepper.Stepper" in text
        assert "num_steps: 1000000" in text
        assert "FIXTURES" not in text


def test_a_build_beside_itself(tmp_path: Path) -> None:
    in_history = ["git", "-C", str(ROOT), "rev-parse", "--verify", "HEAD"]
    if subprocess.run(in_history, capture_output=True).returncode:
        pytest.skip("no git history here")
    command = [sys.executable, str(ROOT / "benchmarks" / "build_ratio.py"), "--tiny"]
    command += ["--base", "HEAD", "--only", "micro_batches", "--cache", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]

    cpu, wall = done.stdout.splitlines()[2:4]
    assert cpu.split()[:2] == ["micro_batches", "CPU"]
    assert wall.split()[0] == "wall"
    for words in (cpu.split()[2:4], wall.split()[1:3]):
        assert all(0 < float(seconds) < 60 for seconds in words)
