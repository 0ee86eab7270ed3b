"""Settings of Lightning's Trainer that count optimizer steps or epochs: a run of RL steps has others in their place."""

from __future__ import annotations

import math
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.utilities import rank_zero_warn

_STEPS = "model.init_args.num_steps, the number of RL steps"

#: Callbacks that change what an optimizer step is, and what does it here.
_CALLBACKS: dict[type, str] = {
    GradientAccumulationScheduler: "model.init_args.micro_batch_size or max_tokens",
    StochasticWeightAveraging: "a lower model.init_args.optim.lr",
    LearningRateFinder: "model.init_args.optim.lr",
    BatchSizeFinder: "data.init_args.batch_size and model.init_args.micro_batch_size",
}


def check_trainer(trainer: Trainer) -> None:
    """Refuse what would count something else than RL steps, or end a run before ``num_steps``.

    Args:
        trainer: of a fit, before it begins.

    Raises:
        ValueError: that names each setting, and the one to use instead.
    """
    # Lightning itself sets the lengths of a dry run.
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return

    num_first = trainer.num_sanity_val_steps
    if 0 < num_first < math.inf:
        rank_zero_warn(
            f"trainer.num_sanity_val_steps: {num_first}: the evaluation before the first step is of so many batches of "
            "each set, and no metric to compare later ones with; use -1 (all) or 0 (none) instead"
        )
    wrong = [*_lengths(trainer), *_gradients(trainer), *_evaluations(trainer), *_callbacks(trainer)]
    if wrong:
        raise ValueError("; ".join(wrong))


def _lengths(trainer: Trainer) -> list[str]:
    """What says how long a run is."""
    wrong = []
    if trainer.max_steps != -1:
        wrong.append(_refusal("max_steps", trainer.max_steps, "counts optimizer steps", _STEPS))
    if trainer.min_steps:
        wrong.append(_refusal("min_steps", trainer.min_steps, "counts optimizer steps", _STEPS))
    if trainer.min_epochs:
        wrong.append(_refusal("min_epochs", trainer.min_epochs, "a run is one epoch", _STEPS))
    if trainer.limit_train_batches != 1.0:
        limit = trainer.limit_train_batches
        wrong.append(_refusal("limit_train_batches", limit, "training data have no end", _STEPS))
    limit = getattr(trainer, "overfit_batches", 0.0)
    if limit:
        rows = "a train manifest of so many rows"
        wrong.append(_refusal("overfit_batches", limit, "training data have no end", rows))

    # Data of the user's own may have an end, and be gone through several times.
    is_endless = hasattr(getattr(trainer, "datamodule", None), "next_step")
    epochs = trainer.max_epochs
    if epochs == 0 or (is_endless and epochs not in (-1, 1, 1000, None)):
        wrong.append(_refusal("max_epochs", epochs, "a run is one epoch", _STEPS))
    return wrong


def _gradients(trainer: Trainer) -> list[str]:
    """What says how gradients become an optimizer step."""
    wrong = []
    if trainer.accumulate_grad_batches != 1:
        num = trainer.accumulate_grad_batches
        instead = "data.init_args.batch_size with model.init_args.micro_batch_size or max_tokens"
        wrong.append(_refusal("accumulate_grad_batches", num, "an RL step is a whole", instead))
    if trainer.gradient_clip_val is not None or trainer.gradient_clip_algorithm is not None:
        value = trainer.gradient_clip_val
        instead = "model.init_args.optim.max_grad_norm"
        wrong.append(_refusal("gradient_clip_val", value, "an RL step has many passes", instead))
    return wrong


def _evaluations(trainer: Trainer) -> list[str]:
    """What says when a run is evaluated."""
    wrong = []
    # There is none where a time is given.
    interval: Any = getattr(trainer, "val_check_interval", 1.0)
    is_share = isinstance(interval, float) and interval != 1.0
    is_none = isinstance(interval, int) and interval < 1
    if is_share or is_none:
        instead = "a whole number of RL steps from 1 on"
        wrong.append(_refusal("val_check_interval", interval, "a run is one epoch", instead))
    if trainer.check_val_every_n_epoch not in (None, 1):
        every = trainer.check_val_every_n_epoch
        instead = "trainer.val_check_interval, a number of RL steps"
        wrong.append(_refusal("check_val_every_n_epoch", every, "a run is one epoch", instead))
    return wrong


def _callbacks(trainer: Trainer) -> list[str]:
    wrong = []
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        name = type(callback).__name__
        if isinstance(callback, ModelCheckpoint) and callback._every_n_train_steps:
            wrong.append(
                "ModelCheckpoint.every_n_train_steps counts optimizer steps, of which an RL step takes num_updates or "
                "none; use checkpoint.every_n_steps (RLCheckpoint) instead"
            )
        for kind, instead in _CALLBACKS.items():
            # Lightning has a scheduler of its own in every trainer, which changes nothing.
            is_own = isinstance(
                callback, GradientAccumulationScheduler
            ) and callback.scheduling == {0: 1}
            if isinstance(callback, kind) and not is_own:
                wrong.append(f"{name} does not fit an RL step; use {instead} instead")
    return wrong


def _refusal(name: str, value: Any, reason: str, instead: str) -> str:
    return f"trainer.{name}: {value}: {reason}; use {instead} instead"
