"""The miniature on sentences: its configurations in another place, and its page on made-up results."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lightning_audiorl.metrics.rows import RowResult
from lightning_audiorl.reports.row_files import plain_rows, write_rows
from lightning_audiorl.types import Utterance

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    # Experiments are programs: they import each other by their plain names.
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return import_module("sentences_runs")


def test_every_path_of_the_configurations_is_put_in_its_place(runs: ModuleType) -> None:
    place = runs.Place(Path("/there"), Path("/base"), "flite")
    configs = {config for config, _ in runs.ROWS.values()}
    for config in (*configs, "codec", "sft", "token2text"):
        text = str(place.settings(config, seed=3))
        assert "runs/tts" not in text
        assert "openai/" not in text
        assert ("/base" in text) == (config not in ("codec", "token2text"))

    policy = place.settings("grpo", seed=3)["model"]["init_args"]["policy"]["init_args"]
    assert policy["init_from"] == "/there/seed3/start/export"
    assert policy["codec"]["init_args"]["init_from"] == "/there/codec/export"


def results_of(start: float, control: float, diffro: float) -> dict[str, Any]:
    metrics = {"cer": 0.4, "tokens_per_unit": 20.0, "missing_stop_rate": 0.0}
    return {
        "start": {"figures": metrics | {"held_out_cer": start}},
        "SFT control": {"figures": metrics | {"held_out_cer": control}, "budget": "9 steps"},
        "DiffRO": {
            "figures": metrics | {"held_out_cer": diffro},
            "budget": "3 steps",
            "less": {"start": {"held_out_cer": [-0.1, -0.15, -0.05], "cer": [0.0, -0.1, 0.1]}},
        },
    }


def test_the_page_has_every_row_and_its_change_against_the_start(
    runs: ModuleType, tmp_path: Path
) -> None:
    reading = tmp_path / "reading.md"
    reading.write_text("What it means.\n")
    of_page = import_module("sentences_page").page
    made_with = {"commit": "x"}

    first = results_of(0.5, 0.45, 0.4)
    page = of_page({"results": {0: first}, "made_with": made_with}, reading)
    assert "## Reading\n\nWhat it means.\n\n## Table" in page
    assert "| DiffRO | 40.0<br>[-20 %] |" in page
    assert "| DiffRO | 0 | start | **-10.0 (-15.0 to -5.0)** | +0.0 (-10.0 to +10.0) |" in page

    second = results_of(0.5, 0.45, 0.3)
    page = of_page({"results": {0: first, 1: second}, "made_with": made_with}, Path("none"))
    assert "## Reading" not in page
    assert "| DiffRO | 35.0 ± 7.1<br>[-30 % (-40 to -20)] |" in page


def test_a_row_is_compared_text_by_text(runs: ModuleType) -> None:
    start = {"cer": [(2.0, 4.0), (1.0, 4.0)], "held_out_cer": [(2.0, 4.0), (2.0, 4.0)]}
    row = {"cer": [(1.0, 4.0), (0.0, 4.0)], "held_out_cer": [(2.0, 4.0), (2.0, 4.0)]}
    less = import_module("sentences").less(row, start)
    assert less == {"cer": [-0.25] * 3, "held_out_cer": [0.0] * 3}


def test_what_a_row_says_of_each_text_is_read_from_its_run(
    runs: ModuleType, tmp_path: Path
) -> None:
    place = runs.Place(tmp_path, Path("/base"), "flite")
    report = runs.row_folder(place, 0, "both + filter, R1+R2") / "report"
    assert report.parent.name == "both_filter_r1_r2"

    row = Utterance("a", (), "one", 1.0)
    lines = plain_rows({"test": [RowResult(row, {}, {"cer": (1.0, 3.0)})]})
    write_rows(lines, report / "report.before.jsonl", 60)
    (report / "report.json").write_text(json.dumps({"evaluations": [{"rl_step": 60}]}))
    assert runs.row_parts(place, 0, "both + filter, R1+R2") == {"cer": [(1.0, 3.0)]}
