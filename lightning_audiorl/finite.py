"""Whether a model's weights are numbers, and a callback that ends a training before one is lost to NaN."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from lightning_audiorl.ops.shards import local

_log = logging.getLogger(__name__)


class NotFiniteError(ArithmeticError):
    """Weights, a loss, a gradient or a learning rate are NaN or infinite, so that training cannot go on."""


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no entry is NaN or infinite; of a shard, no entry of this process.

    Example:
        >>> all_finite([torch.ones(2), torch.tensor([1, 2])])
        True
        >>> all_finite([torch.ones(2), torch.tensor([1.0, float("nan")])])
        False
    """
    held = [local(tensor) for tensor in tensors if tensor.is_floating_point()]
    filled = [tensor for tensor in held if tensor.numel()]

    # An entry that is not finite leaves no sum of squares that is: where this one is, all of them are.
    if nn.utils.get_total_norm(filled).isfinite():
        return True

    # Squares overflow though all entries are finite; the largest entry does not, and is NaN where any is. On a CPU it
    # takes many times as long to find.
    largest = nn.utils.get_total_norm(filled, norm_type=math.inf)
    return bool(largest.isfinite())


def first_not_finite(named: Mapping[str, Tensor]) -> int | None:
    """The place in ``named`` of the first tensor with an entry that is NaN or infinite; None where all are finite.

    Example:
        >>> first_not_finite({"bias": torch.zeros(2), "weight": torch.tensor([1.0, float("inf")])})
        1
    """
    if all_finite(named.values()):
        return None
    for place, tensor in enumerate(named.values()):
        if not all_finite([tensor]):
            return place
    return None


class FiniteWeights(Callback):
    """Ends a training whose weights, loss or gradients are NaN or infinite; no checkpoint is written of such weights.

    For a plain LightningModule, whose optimizer steps with every batch: a gradient that is not finite would be in all
    weights one step later, so the first one ends the run. All ranks decide alike.

    Every training of this package brings one along (``configure_callbacks``).
    """

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._named: dict[str, Tensor] = {}
        self._start_s = math.inf

    # --- what is checked

    def check_weights(self) -> None:
        """See that the weights that train are finite.

        Raises:
            NotFiniteError: naming the step, the first tensor that is not, and the last good checkpoint.
        """
        place = self._first_on_any_rank(self._named)
        if place is None:
            return

        name = list(self._named)[place]
        raise NotFiniteError(
            f"{self.where()}: weights are NaN or infinite, first in {name}; {self.how_to_go_on()}"
        )

    def _first_on_any_rank(self, named: Mapping[str, Tensor]) -> int | None:
        """As `first_not_finite`, but of all ranks: where each holds a shard, others may see what this one does not."""
        place = first_not_finite(named)
        if self._trainer is None:
            return place

        # Counted from the end, so that the largest number is the first place; 0 is none.
        from_end = 0 if place is None else len(named) - place
        number = torch.tensor(float(from_end), device=self._trainer.strategy.root_device)
        largest = int(self._trainer.strategy.reduce(number, reduce_op="max"))
        return len(named) - largest if largest else None

    def where(self) -> str:
        """The step at hand, for a message."""
        return "" if self._trainer is None else f"after step {self._trainer.global_step}"

    def how_to_go_on(self) -> str:
        """The last checkpoint of this run, and what to do with it, for a message."""
        trainer = self._trainer
        path = None if trainer is None else last_checkpoint(trainer, self._start_s)
        if path is None:
            return "there is no checkpoint before it: mend the cause and begin anew"
        return (
            f"the last good checkpoint is {path}: mend the cause (a learning rate too high, say) and go on "
            f"with --ckpt_path {path}"
        )

    # --- hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note when the run began: a checkpoint that is older is none of its own."""
        self._trainer = trainer
        self._start_s = time.time()

    def _take_weights(self, pl_module: LightningModule, trained_only: bool) -> None:
        self._named = {}
        for name, parameter in pl_module.named_parameters():
            if parameter.requires_grad or not trained_only:
                self._named[name] = parameter

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Frozen weights are seen once, those that train from now on."""
        self._take_weights(pl_module, trained_only=False)
        self.check_weights()
        self._take_weights(pl_module, trained_only=True)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        """A gradient that is not finite is not taken."""
        gradients = {name: p.grad for name, p in self._named.items() if p.grad is not None}
        place = self._first_on_any_rank(gradients)
        if place is not None:
            name = list(gradients)[place]
            raise NotFiniteError(
                f"{self.where()}: the gradient is NaN or infinite, first in {name}; {self.how_to_go_on()}"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """See that the loss was a number, and that the step has left the weights."""
        losses = outputs if isinstance(outputs, Mapping) else {}
        if "loss" in losses and self._first_on_any_rank({"loss": losses["loss"]}) is not None:
            raise NotFiniteError(
                f"{self.where()}: the loss is {float(losses['loss'])}; {self.how_to_go_on()}"
            )
        self.check_weights()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """A checkpoint of weights that are not finite is not written, and replaces none."""
        if self._named:
            self.check_weights()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Metrics of weights that are not finite would mean nothing."""
        self._check_evaluated(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As before a validation."""
        self._check_evaluated(trainer, pl_module)

    def _check_evaluated(self, trainer: Trainer, pl_module: LightningModule) -> None:
        is_trained = trainer.state.fn == "fit" and not trainer.sanity_checking
        self._take_weights(pl_module, trained_only=is_trained)
        self.check_weights()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before anything is exported or saved."""
        self.check_weights()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Weights that are not finite make errors of many kinds; say so beside them. This rank's alone."""
        if not isinstance(exception, NotFiniteError) and not all_finite(self._named.values()):
            _log.error("%s: weights are NaN or infinite; %s", self.where(), self.how_to_go_on())


def last_checkpoint(trainer: Trainer, start_s: float) -> Path | None:
    """The last checkpoint that a run has written since ``start_s``, else the one that it was resumed from.

    Args:
        trainer: of the run.
        start_s: when the run began, in seconds of `time.time`.
    """
    paths = []
    for callback in trainer.checkpoint_callbacks:
        # Ours tells its paths by name, Lightning's keeps the last ones that it wrote.
        path_of = getattr(callback, "path", None)
        if callable(path_of):
            paths.append(path_of(trainer, "last"))
        paths += [getattr(callback, name, "") for name in ("last_model_path", "best_model_path")]

    written = [Path(path) for path in paths if path and Path(path).is_file()]
    own = [path for path in written if path.stat().st_mtime >= start_s]
    if own:
        return max(own, key=lambda path: path.stat().st_mtime)
    return None if trainer.ckpt_path is None else Path(trainer.ckpt_path)
