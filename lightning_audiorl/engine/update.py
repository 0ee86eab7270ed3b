"""The update of a step: backward passes in micro-batches, the gradients of all losses, one clipped optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_audiorl.engine.distributed import all_reduce, clip_gradients, raise_on_all_ranks
from lightning_audiorl.engine.loss_checks import check_computed
from lightning_audiorl.engine.update_watch import UpdateWatch
from lightning_audiorl.losses import Loss, MicroBatch, Prepared, WeightedGradients
from lightning_audiorl.losses.combine import take_gradients
from lightning_audiorl.strategies import RLStrategy

# Metrics of a loss that is not the first of its run are named after it, but for those of one kind of loss alone.
_UNPREFIXED = ("tau", "stop_rate")


@dataclass(frozen=True)
class Updater:
    """Turns losses into optimizer steps.

    Args:
        losses: the first one names its metrics plainly, the others after themselves.
        combiner: how the gradients of several losses become one.
        parameters: those that train, in a fixed order.
        optimizer: anything with ``step`` and ``zero_grad``.
        backward: of a scalar loss.
        strategy: through which ranks agree.
        max_grad_norm: clipping by global norm; 0 is off.
        watch: sees each update, and ends a run that is lost.
    """

    losses: Sequence[Loss[Any]]
    combiner: WeightedGradients
    parameters: Sequence[nn.Parameter]
    optimizer: Optimizer
    backward: Callable[[Tensor], None]
    strategy: RLStrategy
    max_grad_norm: float
    watch: UpdateWatch = field(default_factory=UpdateWatch)

    def step(
        self,
        prepared: Sequence[Prepared],
        micro_batches: Callable[[], Iterator[MicroBatch]],
        rl_step: int,
        num_steps: int,
    ) -> dict[str, float]:
        """One update: the gradients of all losses, combined, and an optimizer step.

        Args:
            prepared: what each loss took from the step.
            micro_batches: passes over the step, anew for each loss.
            rl_step, num_steps: for the schedules of the combiner.

        Returns:
            The metrics of losses, gradients and optimizer, by log key.
        """
        metrics: dict[str, float] = {}
        gradients = []
        for loss, ready in zip(self.losses, prepared, strict=True):
            of_loss = self.accumulate(loss, ready, micro_batches())
            metrics |= self._named(loss, of_loss, metrics)
            if len(self.losses) > 1:
                gradients.append(take_gradients(self.parameters))

        if gradients:
            names = [loss.name for loss in self.losses]
            metrics |= self.combiner.combine(names, self.parameters, gradients, rl_step, num_steps)
            for name in names[1:]:
                self.watch.note_left_out(name, metrics[f"{name}/skipped"] > 0)
        return metrics | self.clip_and_step()

    def accumulate(
        self, loss: Loss[Any], prepared: Prepared, micro_batches: Iterator[MicroBatch]
    ) -> dict[str, float]:
        """Backward passes of one loss; its gradient over all micro-batches and ranks is left in the parameters.

        Returns:
            The loss's metrics, by its own names.
        """
        # Every rank and micro-batch divides by the count of the whole step, so the result does not depend on how the
        # step was cut.
        count = None if prepared.count is None else all_reduce(self.strategy, prepared.count)
        divisor = 1.0 if count is None else max(1.0, count)

        sums = dict.fromkeys(loss.sum_names, 0.0)
        with raise_on_all_ranks(self.strategy, "the forward and backward passes"):
            for micro_batch in micro_batches:
                if self._can_skip(prepared, micro_batch):
                    continue

                value, of_micro_batch = loss.compute(prepared, micro_batch, divisor)
                check_computed(loss, value, of_micro_batch)

                # A micro-batch that only keeps ranks in lockstep has weight 0.
                self.backward(value * (self.strategy.loss_scale * micro_batch.weight))
                for name, part in of_micro_batch.items():
                    sums[name] += float(part) * micro_batch.weight
        sums = {name: all_reduce(self.strategy, value) for name, value in sums.items()}
        self.watch.note_loss(loss.name, sums.get("loss", 0.0))

        # A count that only the passes tell divides the gradients after them.
        if count is None:
            count = sums[loss.count_name]
            for parameter in self.parameters:
                # With a count of 0 no gradient is but 0, and stays so.
                if parameter.grad is not None and count:
                    parameter.grad.div_(count)

        self.strategy.sync_gradients(self.parameters)
        return {**loss.metrics(prepared, sums, count), **prepared.metrics}

    def clip_and_step(self) -> dict[str, float]:
        """Clip by global norm, step, zero the gradients.

        The optimizer stands still where loss or norm are not finite, and where the norm is 0: nothing was learnt, but
        momentum and weight decay would move the weights.

        Returns:
            ``grad_norm`` before clipping, and ``skipped_updates``, 1 where the optimizer stood still.

        Raises:
            NotFiniteError: where the weights are lost, or too many updates in a row were.
        """
        norm = clip_gradients(self.parameters, self.max_grad_norm)
        moves = self.watch.allows(norm, self.parameters)
        if moves:
            self.watch.check_rates(self.optimizer)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.watch.check_weights()
        return {"grad_norm": norm, "skipped_updates": float(not moves)}

    def _can_skip(self, prepared: Prepared, micro_batch: MicroBatch) -> bool:
        """Whether a micro-batch has no used sample, and no other rank waits for its pass."""
        if prepared.used is None or self.strategy.lockstep:
            return False
        return not bool(prepared.used[micro_batch.index].any())

    def _named(
        self, loss: Loss[Any], metrics: Mapping[str, float], taken: Collection[str]
    ) -> dict[str, float]:
        """A loss's metrics by log key; ``taken`` are the keys of the losses before it."""
        if loss is self.losses[0]:
            return dict(metrics)

        named = {}
        for name, value in metrics.items():
            is_unique = "/" in name or name in _UNPREFIXED
            key = name if is_unique and name not in taken else f"{loss.name}/{name}"
            named[key] = value
        return named
