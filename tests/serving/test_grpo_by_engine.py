"""GRPO whose completions come from another process."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from lightning_audiorl import ops
from lightning_audiorl.algorithms import RLModule
from lightning_audiorl.callbacks import PhaseProgressBar
from lightning_audiorl.engine import Sampler
from lightning_audiorl.losses import PolicyGradient
from lightning_audiorl.models import TinyWhisper, WhisperPolicy
from lightning_audiorl.rewards import RewardMix
from lightning_audiorl.serving import LocalEngine, MismatchError, VllmEngine
from tests.algorithms.tiny import FINETUNES, SHORT, Judge, fit, make_grpo, make_policy
from tests.serving.fake import FakeEngine


def test_a_local_engine_changes_nothing() -> None:
    runs = [
        fit(make_grpo(num_steps=2)),
        fit(make_grpo(num_steps=2, engine=LocalEngine())),
    ]
    for name, weight in runs[0].weights[-1].items():
        assert torch.equal(weight, runs[1].weights[-1][name])
    timeless = [
        {name: value for name, value in run.metrics[-1].items() if not name.startswith("seconds/")}
        for run in runs
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize(("finetune", "strategy"), [("all", "auto"), ("lora", "phase_single")])
def test_steps_by_an_engine(finetune: str, strategy: str) -> None:
    engine = FakeEngine()
    grpo = make_grpo(make_policy(FINETUNES[finetune]), num_steps=3, engine=engine)
    # Parts are parked in the phases that do not need them: a push reads what the rollout has.
    recorder = fit(grpo, strategy=strategy)
    assert ("host_mib/pushed_weights" in recorder.metrics[0]) is (strategy == "phase_single")

    assert grpo.losses[0].sampler_cap == 2.0
    for metrics in recorder.metrics:
        assert metrics["engine/mismatch_max"] < 1e-4
        assert metrics["engine/mismatch_mean"] <= metrics["engine/mismatch_max"]
        assert metrics["engine/clipped_share"] == 0
        # Push and sampling stand apart.
        assert metrics["seconds/push"] > 0
        assert metrics["seconds/rollout"] > 0
    assert "seconds/engine_start" in recorder.metrics[0]
    assert "seconds/engine_start" not in recorder.metrics[1]
    # The run has ended, and so has the engine.
    assert len(engine.launched) == 1
    assert engine.launched[0].poll() is not None


def test_push_and_sampling_stand_apart_on_the_bar_and_in_the_ledger(
    capsys: pytest.CaptureFixture[str],
) -> None:
    grpo = make_grpo(num_steps=2, engine=FakeEngine())
    bar = PhaseProgressBar()
    fit(grpo, None, bar, strategy="phase_single", enable_progress_bar=True)
    last = capsys.readouterr().out.splitlines()[-1]
    for name in ("rollout", "push", "engine_check"):
        assert re.search(rf"\b{name} \d+\.\d+ s", last), last
    assert grpo.ledger_table is not None
    assert "| pushed weights, on the host |" in grpo.ledger_table


def test_a_mismatch_that_was_allowed_is_logged() -> None:
    """Log-probs before the tokens that may not be sampled were left out: too low, and some weights are truncated."""
    engine = FakeEngine(("raw",), max_mismatch=100.0)
    metrics = fit(make_grpo(engine=engine, sampler_cap=1.05)).metrics[0]
    assert 0.01 < metrics["engine/mismatch_mean"] < metrics["engine/mismatch_max"]
    assert 0 < metrics["engine/clipped_share"] <= 1
    assert metrics["engine/first_group_mismatch"] > 0.01


def test_the_run_ends_where_the_engine_keeps_old_weights() -> None:
    engine = FakeEngine(("stale",))
    with pytest.raises(MismatchError):
        fit(make_grpo(num_steps=3, engine=engine))
    assert engine.launched[0].poll() is not None


def test_what_does_not_fit_is_refused_before_the_run() -> None:
    with pytest.raises(ValueError, match="encoder-decoder"):
        make_grpo(WhisperPolicy(TinyWhisper(width=32, heads=2)), engine=VllmEngine())  # type: ignore[arg-type]

    settings: dict[str, Any] = {
        "losses": [PolicyGradient()],
        "rewards": RewardMix([Judge()]),
        "sampler": Sampler(4, SHORT, engine=VllmEngine()),
    }
    with pytest.raises(ValueError, match="set sampler_cap, 2 is usual"):
        RLModule(make_policy(), 1, **settings)


def test_mismatch_counts_kept_tokens_alone() -> None:
    trainer = torch.tensor([[[-1.0, -2.0, 9.0]]])
    sampler = torch.tensor([[[-1.5, -2.0, torch.nan]]])
    keep = torch.tensor([[[True, True, False]]])
    mismatch = ops.sampler_mismatch(trainer, sampler, keep, cap=1.5)
    assert mismatch == {"mismatch_mean": 0.25, "mismatch_max": 0.5, "clipped_share": 0.5}


def test_our_own_sampler_by_copies_of_the_weights() -> None:
    engine = LocalEngine(copy_weights=True)
    grpo = make_grpo(make_policy(FINETUNES["lora"]), num_steps=2, engine=engine)
    copied = fit(grpo, strategy="phase_single")
    plain = fit(make_grpo(make_policy(FINETUNES["lora"]), num_steps=2), strategy="phase_single")
    assert grpo.losses[0].sampler_cap is None

    for name, weight in plain.weights[-1].items():
        torch.testing.assert_close(copied.weights[-1][name], weight, atol=1e-4, rtol=0)
    # The frozen ones' are counted in every phase, those of adapters in the rollout, and none is left behind.
    for phase, more in (("update", 0.0), ("rollout", 0.001)):
        name = f"resident_mib/{phase}"
        assert copied.metrics[-1][name] > plain.metrics[-1][name] + more
    assert "host_mib/pushed_weights" not in copied.metrics[-1]
    assert engine.copied_bytes()[0] == 0
