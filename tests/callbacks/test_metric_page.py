"""docs/metrics.md is written from the specs, and holds every metric that a run logs."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from lightning import Callback, Trainer

from lightning_audiorl.metrics import AsrMetrics, MetricSpec, SpeechMetrics
from lightning_audiorl.metrics.about import EVALUATION, About
from lightning_audiorl.metrics.about_steps import STEP
from lightning_audiorl.metrics.reference import ReferenceProbability
from lightning_audiorl.metrics.specs import TRAINING, RegistersSpecs, evaluation_spec
from tests.callbacks import runs
from tools.metrics import PAGE, page

SHIPPED = [*AsrMetrics.specs, *SpeechMetrics.specs, *ReferenceProbability.specs]


def test_the_page_is_what_the_specs_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tools.metrics --write"


def test_something_is_said_of_each_metric_and_of_no_other() -> None:
    names = {spec.name for spec in SHIPPED if spec.about is None} | {"skipped_rows"}
    assert set(EVALUATION) == names


def test_whatever_has_a_spec_of_a_step_is_told() -> None:
    """By a pattern as wide as that of the spec, or by each name that fits it."""
    for spec in TRAINING:
        told = [
            name for name in STEP if fnmatchcase(spec.name, name) or fnmatchcase(name, spec.name)
        ]
        assert told, spec.name


@pytest.mark.parametrize("about", [*EVALUATION.values(), *STEP.values()], ids=lambda one: one.what)
def test_what_is_said_fits_a_table(about: About) -> None:
    for text in (about.what, about.healthy, about.do, about.unit, about.range):
        assert text
        assert "|" not in text
        assert "\n" not in text
    # A line to read, and not a page.
    assert len(about.what) <= 120
    assert len(about.do) <= 200


def test_a_metric_of_ones_own_says_it_itself() -> None:
    about = About("pauses a minute", "as at the start", "listen", "pauses", "0 and more")

    class Pauses(RegistersSpecs):
        specs = (MetricSpec("board_pauses", about=about),)

    assert evaluation_spec("val/dev/board_pauses").told is about
    assert MetricSpec("board_untold").told is None


class KeepKeys(Callback):
    """The log keys of every RL step."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self.keys |= set(pl_module.step_metrics)


@pytest.mark.parametrize("module", [runs.grpo, runs.sft])
def test_what_a_run_logs_is_on_the_page(module: Any, root: str, tmp_path: Path) -> None:
    keys = KeepKeys()
    done = runs.fit(tmp_path, root, keys, module=module(num_steps=1))
    # Not those of losses beside the first: a run of one loss has none.
    patterns = [name for name in STEP if name not in ("*_share", "*/weight", "*/skipped")]
    untold = [key for key in keys.keys if not any(fnmatchcase(key, one) for one in patterns)]
    assert not untold
    assert keys.keys

    measured = {name for of_set in done.evaluations[0]["results"].values() for name in of_set}
    assert [name for name in measured if evaluation_spec(name).told is None] == []
