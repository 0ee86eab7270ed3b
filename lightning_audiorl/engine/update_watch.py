"""What became of a run's updates: weights that are lost end it at once, updates that fail in a row after a while.

A run in which no update changed the model says so at its end.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_audiorl.finite import FiniteWeights, NotFiniteError
from lightning_audiorl.ops.shards import local

_log = logging.getLogger(__name__)

#: Shares that tell why a step had nothing to learn from, by log key, in words.
_REASONS = {
    "zero_variance_share": "groups with equal rewards",
    "invalid_share": "samples whose reward failed",
    "dropped_group_share": "groups with fewer than two samples left",
}

# Types of the sizes of weights, in bytes, in which any bit counts.
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class NothingLearntError(RuntimeError):
    """A run has ended, and none of its updates changed the model."""


class UpdateWatch(FiniteWeights):
    """Sees every update of an RL run, and what comes of all of them together.

    An update whose loss or gradient is not finite is skipped, and named in a warning the first time; where more than
    ``max_skipped`` of them come in a row, the run ends. Weights that are not finite end it at once.

    Args:
        max_skipped: see `Optim.max_skipped_updates`.

    Attributes:
        counts: updates of the run, those before a resume included: "made", "not finite" (skipped), "no gradient"
            (skipped, as nothing was there to learn from).
    """

    def __init__(self, max_skipped: int = 3) -> None:
        super().__init__()
        self.max_skipped = max_skipped
        self._begin()

    def _begin(self) -> None:
        self.counts = dict.fromkeys(("made", "not finite", "no gradient"), 0)
        self._in_a_row: dict[str, int] = {}
        self._losses: dict[str, float] = {}
        self._warned = False

        # Of the steps without any update: how many, and the sums of their shares.
        self._num_idle = 0
        self._shares = dict.fromkeys(_REASONS, 0.0)

        # Whether weights are known to have changed, and what they were when this process began.
        self._has_changed = False
        self._before: list[int] = []
        self._made_before = 0
        self._step = 0
        self._module: Any = None

    # --- an update

    def note_loss(self, name: str, value: float) -> None:
        """The sum of a loss over all micro-batches and ranks, before the update that it belongs to."""
        self._losses[name] = value

    def allows(self, norm: float, parameters: Sequence[nn.Parameter]) -> bool:
        """Whether the optimizer may step: first loss and gradient are finite, and there is a gradient at all.

        Args:
            norm: of the gradient, over all ranks.
            parameters: with their gradients.

        Raises:
            NotFiniteError: where it may not, once too often in a row.
        """
        # Losses beside the first have been left out by the combiner where their gradient was not finite.
        first = next(iter(self._losses), "loss")
        value = self._losses.get(first, 0.0)
        self._losses = {}

        is_finite = math.isfinite(norm) and math.isfinite(value)
        if not is_finite:
            self.counts["not finite"] += 1
            what = self._gradient_text(norm, parameters, value)
            self._skip("update", what)
            return False

        self._in_a_row["update"] = 0
        self.counts["made" if norm > 0 else "no gradient"] += 1
        return norm > 0

    def note_left_out(self, name: str, is_left_out: bool) -> None:
        """Whether the gradient of a loss beside the first was left out, since it was not finite.

        Raises:
            NotFiniteError: where it was, once too often in a row.
        """
        if is_left_out:
            self._skip(name, f"the gradient of the loss {name!r} is NaN or infinite")
        else:
            self._in_a_row[name] = 0

    def _skip(self, name: str, what: str) -> None:
        self._in_a_row[name] = self._in_a_row.get(name, 0) + 1
        num = self._in_a_row[name]

        # Weights that are lost make every loss NaN; they, and not their number, are what is to be said.
        self.check_weights()
        if num > self.max_skipped:
            raise NotFiniteError(
                f"{self.where()}: {num} updates in a row were skipped (optim.max_skipped_updates is "
                f"{self.max_skipped}), now as {what}. The weights are still finite; {self.how_to_go_on()}"
            )
        if not self._warned:
            self._warned = True
            _log.warning(
                "%s: skipped, as %s. More than %d in a row end the run; this is said once, the metrics count them.",
                self.where(),
                what,
                self.max_skipped,
            )

    def _gradient_text(self, norm: float, parameters: Sequence[nn.Parameter], loss: float) -> str:
        """Which of loss and gradients is not finite."""
        if math.isfinite(norm):
            return f"the loss is {loss}"

        trained: dict[int, str] = {id(p): name for name, p in self._named.items()}
        gradients: dict[str, Tensor] = {}
        for number, parameter in enumerate(parameters):
            if parameter.grad is not None:
                gradients[trained.get(id(parameter), f"tensor {number}")] = parameter.grad

        place = self._first_on_any_rank(gradients)
        if place is None:
            return f"the norm of the gradient overflows (loss {loss:.4g})"
        return (
            f"the gradient is NaN or infinite, first in {list(gradients)[place]} (loss {loss:.4g})"
        )

    def check_rates(self, optimizer: Optimizer) -> None:
        """See that the learning rates of an optimizer are numbers, before it steps.

        Raises:
            NotFiniteError: naming the rate.
        """
        for group in optimizer.param_groups:
            rate = float(group["lr"])
            # Rounding may leave the end of a schedule a hair below 0.
            if not -1e-12 < rate < math.inf:
                raise NotFiniteError(
                    f"{self.where()}: the learning rate is {rate}; mend optim.schedule or optim.optimizer. The weights "
                    f"are still finite; {self.how_to_go_on()}"
                )

    # --- all updates

    def verdict(self) -> str | None:
        """Why the run has changed nothing, in a sentence; None where it has, or where it made no update at all."""
        num = sum(self.counts.values())
        if num == 0 or self._has_changed:
            return None
        if self.counts["made"]:
            return (
                f"no update changed the model: {self.counts['made']} of {num} were made, but each was too small for "
                "the precision of the weights; take a higher optim.lr, or weights in float32"
            )

        text = (
            f"no update changed the model: all {num} were skipped, {self.counts['no gradient']} without a gradient, "
            f"{self.counts['not finite']} with a loss or gradient that was not finite"
        )
        known = {key: share / max(1, self._num_idle) for key, share in self._shares.items()}
        shares = [f"{100 * share:.0f} % {_REASONS[key]}" for key, share in known.items() if share]
        return f"{text}; on average {', '.join(shares)}" if shares else text

    def _note_change(self) -> None:
        """Compare the weights with those of when this process began, until they have changed."""
        if self._has_changed or not self.counts["made"]:
            return

        changed = float(self._fingerprint() != self._before)
        if self._trainer is not None:
            number = torch.tensor(changed, device=self._trainer.strategy.root_device)
            changed = float(self._trainer.strategy.reduce(number, reduce_op="max"))
        self._has_changed = changed > 0

    def _fingerprint(self) -> list[int]:
        """A number for each tensor that trains, of this rank's part: the sum of its bits, read as whole numbers."""
        sums = []
        for parameter in self._named.values():
            held = local(parameter).contiguous()
            as_whole = held.view(_WHOLE[held.element_size()])
            sums.append(int(as_whole.sum(dtype=torch.int64)))
        return sums

    # --- hooks

    def where(self) -> str:
        """The RL step at hand, for a message."""
        return f"RL step {self._step}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to count; a resumed run's counts come after."""
        super().setup(trainer, pl_module, stage)
        self._begin()
        self._module = pl_module

    def state_dict(self) -> dict[str, Any]:
        """What later parts of the run must know of this one."""
        return {"counts": dict(self.counts), "has_changed": self._has_changed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the `state_dict` of another process."""
        self.counts = dict(state_dict["counts"])
        self._has_changed = state_dict["has_changed"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse weights that are not finite, and note what they are."""
        super().on_train_start(trainer, pl_module)

        # A run of an earlier build, which counted nothing, is taken to have learnt.
        begins = not self._module.rl_step
        self._has_changed = self._has_changed or not (begins or any(self.counts.values()))
        self._made_before = self.counts["made"]
        self._step = self._module.rl_step
        if not self._has_changed:
            self._before = self._fingerprint()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Note which step begins."""
        self._step = self._module.rl_step + 1

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        """Nothing: `allows` has been asked."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Note whether the step has changed anything, and if not, why."""
        self._note_change()
        if self.counts["made"] == self._made_before:
            self._num_idle += 1
            for key in _REASONS:
                share = self._module.step_metrics.get(key, 0.0)
                self._shares[key] += share
        self._made_before = self.counts["made"]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so where nothing was learnt."""
        verdict = self.verdict()
        if verdict is not None and trainer.is_global_zero:
            _log.warning("the run has ended, but %s", verdict)
