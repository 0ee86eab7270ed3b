"""A model is never lost to NaN: what is not finite stops a run, or is skipped and counted, and is said."""

from __future__ import annotations

import itertools
import logging
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_audiorl.algorithms import SFT, GRPODiffRO, Optim
from lightning_audiorl.callbacks import RLCheckpoint
from lightning_audiorl.engine import RLModule
from lightning_audiorl.types import PromptBatch
from tests.algorithms.speaking import make_batch as speaking_batch
from tests.algorithms.speaking import make_module as make_speaking
from tests.algorithms.tiny import (
    Recorder,
    fit,
    flat,
    make_batch,
    make_grpo,
    make_policy,
    trainable,
)
from tests.helpers import assert_close


class Spoil(Callback):
    """Puts one value into one weight at a hook of an RL step."""

    def __init__(self, hook: str, rl_step: int, value: float = math.nan) -> None:
        self.rl_step = rl_step
        self.value = value
        setattr(self, hook, self._spoil)

    def _spoil(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if pl_module.rl_step == self.rl_step:
            weight = list(pl_module.policy.trainable().values())[1]
            with torch.no_grad():
                weight.flatten()[0] = self.value


class SpoilGradients(Callback):
    """Multiplies the gradient of the second tensor in some updates."""

    def __init__(self, updates: set[int], by: float = math.nan) -> None:
        self.updates = updates
        self.by = by
        self.update = -1

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        weight = list(pl_module.policy.trainable().values())[1]
        weight.register_post_accumulate_grad_hook(self._spoil)

    def _spoil(self, weight: Tensor) -> None:
        self.update += 1
        if self.update in self.updates:
            assert weight.grad is not None
            weight.grad.mul_(self.by)


def runs(kind: str, **settings: Any) -> RLModule:
    if kind == "sft":
        return SFT(make_policy(), optim=Optim(lr=1e-3), **settings)
    if kind == "grpo":
        return make_grpo(**settings)
    return make_speaking(**settings)


def batches(kind: str, num: int) -> list[PromptBatch]:
    return [make_batch() if kind != "diffro" else speaking_batch() for _ in range(num)]


def held(folder: Path) -> dict[str, int]:
    """The RL step of each checkpoint; every one of them must be finite."""
    steps = {}
    for path in sorted((folder / "checkpoints").glob("*.ckpt")):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values()), path
        steps[path.stem] = checkpoint["audiorl"]["rl_step"]
    return steps


@pytest.mark.fault(
    "Numbers that are none",
    "a weight that turns NaN or infinite in the middle of a run, by whatever hand",
    "the run ends with an error at once; no checkpoint of it is written, none replaced, and the last good one is named",
)
@pytest.mark.parametrize("kind", ["grpo", "sft", "diffro"])
@pytest.mark.parametrize(
    ("hook", "value"), [("on_train_batch_start", math.nan), ("on_train_batch_end", -math.inf)]
)
def test_a_lost_weight_ends_the_run(kind: str, hook: str, value: float, tmp_path: Path) -> None:
    saving = RLCheckpoint(every_n_steps=1, keep=2)
    module = runs(kind, num_steps=6)
    with pytest.raises(Exception, match="NaN or infinite") as caught:
        fit(
            module,
            batches(kind, 6),
            Spoil(hook, 3, value),
            saving,
            default_root_dir=str(tmp_path),
            enable_checkpointing=True,
        )

    # The end of step 3 is spoilt before its checkpoint, so the good ones are those of the steps before.
    last = 3 if hook == "on_train_batch_start" else 2
    expected = {"last": last, f"step-{last - 1:06d}": last - 1, f"step-{last:06d}": last}
    assert held(tmp_path) == expected
    message = str(caught.value)
    spoilt = list(module.policy.trainable())[1]
    assert f"policy.{spoilt}" in message
    assert str(tmp_path / "checkpoints" / "last.ckpt") in message
    assert f"RL step {last + 1}" in message


@pytest.mark.fault(
    "Numbers that are none",
    "an update so large that the weights overflow",
    "the run ends in that very step",
)
def test_weights_that_overflow_end_the_run() -> None:
    optim = Optim(optimizer=partial(torch.optim.SGD, lr=3e38), max_grad_norm=0.0)
    module = make_grpo(optim=optim, num_steps=3)
    recorder = Recorder()
    with pytest.raises(ArithmeticError, match=r"RL step 1: .*first in policy\..*begin anew"):
        fit(module, None, SpoilGradients({0}, by=1e10), recorder)
    assert recorder.metrics == []


@pytest.mark.fault(
    "Numbers that are none",
    "a schedule or an optimizer of one's own whose learning rate is NaN or infinite",
    "the optimizer does not step, the run ends and the weights are those of before",
)
@pytest.mark.parametrize("rate", [math.nan, math.inf, -1.0])
def test_a_learning_rate_that_is_no_number_ends_the_run(rate: float) -> None:
    schedule = partial(
        torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: rate if step else 1.0
    )
    module = make_grpo(optim=Optim(lr=1e-3, schedule=schedule), num_steps=3)
    recorder = Recorder()
    with pytest.raises(ArithmeticError, match=r"RL step 2: the learning rate is .*schedule"):
        fit(module, None, recorder)
    assert_close(flat(trainable(module.policy)), flat(recorder.weights[0]), "exact")


@pytest.mark.fault(
    "Numbers that are none",
    "gradients that are NaN or infinite in several updates in a row",
    "each is skipped, counted and warned of once; more in a row than the setting allows end the run",
)
@pytest.mark.parametrize("by", [math.nan, math.inf])
def test_gradients_in_a_row(by: float, caplog: pytest.LogCaptureFixture) -> None:
    spoilt = {1, 2, 4, 5, 6, 7}
    module = make_grpo(num_updates=2, num_steps=4, beta=0.0)
    recorder = Recorder()
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(
            ArithmeticError, match=r"RL step 4: 4 updates in a row .*max_skipped_updates"
        ),
    ):
        fit(module, None, SpoilGradients(spoilt, by), recorder)
    assert [metrics["skipped_updates"] for metrics in recorder.metrics] == [1, 1, 2]
    second = list(module.policy.trainable())[1]
    assert caplog.text.count(f"NaN or infinite, first in policy.{second}") == 1
    assert all(tensor.isfinite().all() for tensor in trainable(module.policy).values())


@pytest.mark.parametrize("limit", [0, 1])
def test_the_limit_is_a_setting(limit: int) -> None:
    module = make_grpo(num_steps=4, optim=Optim(lr=1e-3, max_skipped_updates=limit))
    with pytest.raises(ArithmeticError, match=f"RL step {limit + 1}: {limit + 1} updates in a row"):
        fit(module, None, SpoilGradients({0, 1, 2, 3}))


@pytest.mark.fault(
    "Numbers that are none",
    "one micro-batch of several whose loss is NaN",
    "the whole update is skipped: the weights stay as they are",
)
def test_one_micro_batch_that_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_grpo(num_steps=1, micro_batch_size=1)
    start = trainable(module.policy)
    loss = module.losses[0]
    compute = loss.compute
    passes = itertools.count()

    def spoilt(*args: Any) -> Any:
        value, sums = compute(*args)
        factor = math.nan if next(passes) == 1 else 1.0
        return value * factor, sums

    monkeypatch.setattr(loss, "compute", spoilt)
    recorder = fit(module)
    assert next(passes) == 3
    assert recorder.metrics[0]["skipped_updates"] == 1
    assert_close(flat(trainable(module.policy)), flat(start), "exact")


@pytest.mark.fault(
    "Numbers that are none",
    "a loss that is NaN or infinite although its gradient is finite",
    "the update is skipped and counted",
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_without_a_number(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_grpo(num_steps=1)
    start = trainable(module.policy)
    loss = module.losses[0]
    compute = loss.compute

    def spoilt(*args: Any) -> Any:
        made, sums = compute(*args)
        return made, sums | {"loss": torch.tensor(value)}

    monkeypatch.setattr(loss, "compute", spoilt)
    recorder = fit(module)
    assert recorder.metrics[0]["skipped_updates"] == 1
    assert_close(flat(trainable(module.policy)), flat(start), "exact")


@pytest.mark.fault(
    "Numbers that are none",
    "a reference, old log-probs or advantages that are NaN",
    "the update is skipped and counted, and in a row they end the run",
)
@pytest.mark.parametrize("what", ["reference_log_probs", "old_log_probs", "advantages"])
def test_what_a_loss_reads_is_not_finite(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_grpo(num_steps=4, num_updates=2)
    loss = module.losses[0]
    prepare = loss.prepare

    def spoilt(*args: Any) -> Any:
        prepared = prepare(*args)
        return replace(prepared, **{what: getattr(prepared, what) * math.nan})

    monkeypatch.setattr(loss, "prepare", spoilt)
    recorder = Recorder()
    with pytest.raises(ArithmeticError, match=r"RL step 2: 4 updates in a row .*loss nan"):
        fit(module, None, recorder)
    assert [metrics["skipped_updates"] for metrics in recorder.metrics] == [2]


@pytest.mark.fault(
    "Numbers that are none",
    "a divergence from the reference so large that its estimate overflows",
    "the update is skipped and counted, and in a row they end the run",
)
def test_a_divergence_that_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_grpo(num_steps=5)
    loss = module.losses[0]
    prepare = loss.prepare

    def far(*args: Any) -> Any:
        prepared = prepare(*args)
        return replace(prepared, reference_log_probs=prepared.reference_log_probs + 1e4)

    monkeypatch.setattr(loss, "prepare", far)
    with pytest.raises(ArithmeticError, match="RL step 4: 4 updates in a row"):
        fit(module)


@pytest.mark.fault(
    "Numbers that are none",
    "a loss beside another whose gradient is never finite",
    "the other trains on, and the run ends once more were left out in a row than the setting allows",
)
def test_a_second_loss_that_is_always_left_out() -> None:
    module = make_speaking(GRPODiffRO, num_steps=5)
    second = module.losses[1]
    compute = second.compute
    second.compute = lambda *args: (lambda loss, sums: (loss * math.nan, sums))(*compute(*args))
    recorder = Recorder()
    with pytest.raises(ArithmeticError, match=r"RL step 4: 4 updates in a row .*loss 'diffro'"):
        fit(module, batches("diffro", 5), recorder)
    assert recorder.metrics[0]["skipped_updates"] == 0


@pytest.mark.fault(
    "Numbers that are none",
    "a policy whose weights hold NaN before the first step, or that is only evaluated",
    "it is refused before anything is trained or measured",
)
@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_a_policy_of_nan_is_refused(command: str) -> None:
    module = make_grpo(num_steps=1)
    with torch.no_grad():
        list(module.policy.parameters())[2].flatten()[1] = math.nan
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader: Any = DataLoader([make_batch()], batch_size=None)  # type: ignore[arg-type]
    with pytest.raises(ArithmeticError, match=r"weights are NaN or infinite, first in policy\."):
        getattr(trainer, command)(module, loader)
    assert module.evaluations == []


@pytest.mark.fault(
    "Numbers that are none",
    "a policy of finite weights that computes NaN from some row of an evaluation set",
    "the evaluation ends with an error that names set and row; no figure is made of it",
)
def test_an_evaluation_of_nan_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_grpo(num_steps=1)
    sample = module.policy.sample

    def spoilt(*args: Any) -> Any:
        rollout = sample(*args)
        log_probs = rollout.log_probs.clone()
        log_probs[1, 0, 0] = math.nan
        return replace(rollout, log_probs=log_probs)

    monkeypatch.setattr(module.policy, "sample", spoilt)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    loader: Any = DataLoader([make_batch()], batch_size=None)  # type: ignore[arg-type]
    with pytest.raises(ArithmeticError, match="evaluation set 'set0', row 'b'"):
        trainer.validate(module, loader, verbose=False)
    assert module.evaluations == []
