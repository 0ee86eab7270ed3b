"""The miniature on sentences: its configurations in another place, and its page on made-up results."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

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


def test_the_page_has_every_row_and_its_change_against_the_start(runs: ModuleType) -> None:
    metrics = {"cer": 0.4, "tokens_per_unit": 20.0, "missing_stop_rate": 0.0}
    results = {
        0: {
            "start": {"figures": metrics | {"held_out_cer": 0.5}},
            "SFT control": {"figures": metrics | {"held_out_cer": 0.45}, "budget": "9 steps"},
            "DiffRO": {"figures": metrics | {"held_out_cer": 0.4}, "budget": "3 steps"},
        }
    }
    page = import_module("sentences_page").page({"results": results, "made_with": {"commit": "x"}})
    assert "| DiffRO | 40.0<br>[-20 % (-20 to -20)] |" in page
    assert "- DiffRO: -5.0 ± nan points; below the control in 1 of 1 seeds" in page
