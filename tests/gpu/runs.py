"""Short GRPO runs on a device under each placement, and what they leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_audiorl.algorithms import GRPO
from lightning_audiorl.models import FunAsrNanoPolicy, TinyFunAsrNano
from lightning_audiorl.strategies import PhaseSingleDevice
from tests.algorithms.tiny import make_batch, make_grpo, trainable

#: Every test here wants a GPU.
NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine"
    ),
]

#: Large enough that a part's bytes stand out from the allocator's rounding.
SPEC = TinyFunAsrNano(width=256, encoder_layers=3, lm_layers=3, heads=4)
PLACEMENTS: dict[str, dict[str, Any]] = {
    "resident": {"placement": "resident"},
    "offload": {"placement": "offload"},
    "auto": {"placement": "auto", "budget_gb": 0.03},
}


class Witness(Callback):
    """Figures, hypotheses and weights after every RL step."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []
        self.texts: list[list[str]] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.weights: dict[str, Tensor] = {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        named = pl_module.policy.trainable().items()
        self.gradients.append({name: p.grad.cpu() for name, p in named if p.grad is not None})

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self.metrics.append(dict(pl_module.step_metrics))
        self.texts.append([h.text for group in pl_module.last_step.groups for h in group])

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        placement = getattr(trainer.strategy, "placement", None)
        if placement is None:
            self.weights = {name: p.cpu() for name, p in trainable(pl_module.policy).items()}
            return
        with placement.all_values():
            self.weights = {name: p.cpu() for name, p in trainable(pl_module.policy).items()}


@contextmanager
def deterministic() -> Iterator[None]:
    """Sums in a fixed order where CUDA has them; elsewhere a warning."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def make_module(num_steps: int, spec: TinyFunAsrNano = SPEC, **settings: Any) -> GRPO:
    return make_grpo(FunAsrNanoPolicy(spec), num_steps=num_steps, **settings)


def fit(
    module: GRPO,
    placement: str | None,
    device: str = "cuda",
    stop_at: int | None = None,
    save: str | None = None,
    ckpt_path: str | None = None,
) -> Witness:
    """Train; ``placement`` None is Lightning's own strategy, without phases.

    Args:
        stop_at: batches to give; default all of the module's steps.
        save: path of a checkpoint written at the end.
        ckpt_path: checkpoint to go on from.
    """
    witness = Witness()
    strategy: Any = "auto" if placement is None else PhaseSingleDevice(**PLACEMENTS[placement])
    trainer = Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        strategy=strategy,
        max_epochs=1 if ckpt_path is None else 2,  # the checkpoint stands at the end of an epoch
        logger=False,
        callbacks=[witness],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches = [make_batch() for _ in range(stop_at or module.num_steps)]
    with deterministic():
        trainer.fit(module, DataLoader(batches, batch_size=None), ckpt_path=ckpt_path)  # type: ignore[arg-type]
    if save is not None:
        trainer.save_checkpoint(save)
    return witness


def assert_same(actual: Witness, expected: Witness) -> None:
    """Bit for bit: hypotheses, losses, gradients, weights; and something was learnt."""
    assert actual.texts == expected.texts
    for name in ("loss", "kl", "grad_norm"):
        assert [m[name] for m in actual.metrics] == [m[name] for m in expected.metrics], name
    assert len(actual.gradients) == len(expected.gradients) > 0
    for ours, theirs in zip(actual.gradients, expected.gradients, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert all(
        torch.equal(actual.weights[name], expected.weights[name]) for name in expected.weights
    )
    assert any(gradient.any() for gradient in expected.gradients[-1].values())
