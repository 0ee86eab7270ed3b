"""What the pages of experiments/tts.py and tts_long.py say, on made-up records."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture
def ears(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    # Experiments are programs: they import each other by their plain names.
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return import_module("tts_ears")


def heard(errors: list[int | None]) -> list[dict[str, Any]]:
    """Records of a recogniser; None where it failed."""
    return [{"errors": each, "characters": 0 if each is None else 10} for each in errors]


def test_a_difference_is_of_the_rows_that_an_ear_heard_in_both(ears: ModuleType) -> None:
    first = {"whisper": heard([5, 5, 5, None]), "samples": [{"id": "a"}] * 4}
    second = {"whisper": heard([4, 4, 4, 9]), "samples": [{"id": "a"}] * 4}
    found = ears.differences(first, second)
    assert found == {"whisper": [pytest.approx(-0.1)] * 3}


def test_the_page_of_the_table_says_where_an_interval_excludes_zero(ears: ModuleType) -> None:
    page = import_module("tts_page")
    start = {"figures": {"whisper_cer": 0.5}, "less": {}}
    less = {"start": {"whisper": [-0.1, -0.15, -0.05], "resemblyzer": [0.01, -0.01, 0.03]}}
    both = {"figures": {"whisper_cer": 0.4}, "less": less}
    table = page.ear_differences({0: {"start": start, "both": both}})
    assert table.splitlines()[-1] == (
        "| both | 0 | start | **-10.0 (-15.0 to -5.0)** | +0.010 (-0.010 to +0.030) |"
    )


def test_early_stopping_goes_back_to_the_best_of_the_judge_that_rewards(ears: ModuleType) -> None:
    plot = import_module("tts_long_plot")
    run = {"evaluated_at": [0, 100, 200, 300, 400], "dev": {"cer": [0.4, 0.2, 0.3, 0.3, 0.3]}}
    assert plot.early_stop(run) == 100
    rising = {"evaluated_at": [0, 100, 200], "dev": {"cer": [0.4, 0.3, 0.2]}}
    assert plot.early_stop(rising) is None
