"""A run in which no update changed the model says so: on the console, in its report and by its exit code."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_audiorl.algorithms import Optim
from lightning_audiorl.callbacks import Export, RLCheckpoint, RunReport
from lightning_audiorl.cli import AudioRLCLI
from lightning_audiorl.rewards import Reward, RewardMix
from lightning_audiorl.types import Hypothesis
from tests.algorithms.tiny import Judge, fit, make_grpo, make_policy
from tests.callbacks import runs


class Same(Reward):
    """The same for all; NaN for all but the first of each row where it is to fail."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__(1.0, "same")
        self.fails = fails

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        values = [1.0] * len(hypotheses)
        if self.fails:
            values = [math.nan if i % 3 else 1.0 for i in range(len(hypotheses))]
        return values


CASES: dict[str, dict[str, Any]] = {
    "all 2 were skipped, 2 without a gradient, 0 .*100 % groups with equal rewards": {
        "rewards": RewardMix([Same()]),
        "beta": 0.0,
    },
    "all 2 were skipped, 2 without.*67 % samples whose reward failed": {
        "rewards": RewardMix([Same(fails=True)])
    },
    "2 of 2 were made, but each was too small": {"optim": Optim(lr=1e-60)},
}


@pytest.mark.fault(
    "Numbers that are none",
    "a run of which every update is skipped, or too small for the precision of the weights",
    "the report does not say that it is finished alone but why nothing was learnt, as a warning does",
)
@pytest.mark.parametrize("message", CASES)
def test_a_run_that_learns_nothing_says_so(
    message: str, root: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = runs.grpo(num_steps=2, **CASES[message])
    callbacks = [RLCheckpoint(every_n_steps=1), Export(), RunReport()]
    with caplog.at_level(logging.WARNING):
        runs.fit(tmp_path, root, *callbacks, module=module, limit_val_batches=0)

    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["status"].startswith("finished, but no update changed the model: ")
    assert len([r for r in caplog.records if "no update changed" in r.message]) == 1
    assert re.search(message, report["status"])
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert (tmp_path / "export").is_dir()


def test_a_run_that_learns_in_one_step_of_two_does_not(caplog: pytest.LogCaptureFixture) -> None:
    """Nor one that learnt before a resume, nor one that takes no step at all."""
    module = make_grpo(num_steps=2)
    fit(module)
    assert module.update_watch.verdict() is None
    assert module.update_watch.counts == {"made": 2, "not finite": 0, "no gradient": 0}
    assert "no update changed" not in caplog.text


def test_what_was_learnt_before_a_resume_counts(root: str, tmp_path: Path) -> None:
    """A run that goes on without learning anything more has learnt all the same; a finished one stays as it was."""
    saving = RLCheckpoint(every_n_steps=1)
    runs.fit(tmp_path, root, saving, module=runs.grpo(num_steps=2), limit_val_batches=0)
    first = str(tmp_path / "checkpoints" / "step-000001.ckpt")
    last = str(tmp_path / "checkpoints" / "last.ckpt")

    dull = runs.grpo(num_steps=2, rewards=RewardMix([Same()]), beta=0.0)
    runs.fit(tmp_path, root, module=dull, limit_val_batches=0, ckpt_path=first)
    assert dull.rl_step == 2
    assert dull.update_watch.counts == {"made": 1, "not finite": 0, "no gradient": 1}
    assert dull.update_watch.verdict() is None

    again = runs.grpo(num_steps=2)
    runs.fit(tmp_path, root, module=again, limit_val_batches=0, ckpt_path=last)
    assert again.update_watch.verdict() is None


def test_gradients_that_are_never_finite(caplog: pytest.LogCaptureFixture) -> None:
    module = make_grpo(make_policy(), Judge(), num_steps=2)
    loss = module.losses[0]
    compute = loss.compute
    loss.compute = lambda *args: (lambda value, sums: (value * math.nan, sums))(*compute(*args))
    fit(module)
    verdict = module.update_watch.verdict()
    assert verdict is not None
    assert "all 2 were skipped, 0 without a gradient, 2 with a loss or gradient" in verdict


@pytest.mark.fault(
    "Numbers that are none",
    "`audiorl fit` of a run in which no update changed the model",
    "it ends with an error, after report, checkpoint and export, and not with exit code 0",
)
def test_the_command_fails_after_a_run_that_learnt_nothing() -> None:
    watch = SimpleNamespace(verdict=lambda: "no update changed the model: all 2 were skipped")
    command: Any = AudioRLCLI.__new__(AudioRLCLI)
    command.folder = None
    command.subcommand = "fit"
    command.trainer = SimpleNamespace(
        fit=lambda *_, **__: None,
        checkpoint_callback=None,
        is_global_zero=False,
        default_root_dir="runs",
    )
    command.model = SimpleNamespace(update_watch=watch)
    with pytest.raises(RuntimeError, match="the run has ended, but no update changed the model"):
        command.fit()
