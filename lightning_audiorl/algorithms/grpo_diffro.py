"""GRPO and DiffRO on one rollout, with the sample filter (arXiv 2509.18569)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from lightning_audiorl import ops
from lightning_audiorl.algorithms.diffro_filters import DiffroFilter, PositiveAdvantage
from lightning_audiorl.algorithms.gradients import compare, put_sum, take_gradients
from lightning_audiorl.algorithms.grpo import GRPO
from lightning_audiorl.algorithms.ranks import agreed
from lightning_audiorl.algorithms.refill import Sampled
from lightning_audiorl.algorithms.relaxed import RelaxedModule, RelaxedStep
from lightning_audiorl.algorithms.step import Step
from lightning_audiorl.strategies import PhaseMixin
from lightning_audiorl.types import PromptBatch


class GRPODiffRO(GRPO, RelaxedModule):
    """GRPO's loss on every sample, DiffRO's on those that the filter keeps; the gradients are added.

    Both gradients are measured before they are added: ``grad_norm/grpo``, ``grad_norm/diffro``, ``grad_cosine``, and
    ``diffro_share``, |w g_diffro| / (|g_grpo| + |w g_diffro|). A step in which the filter keeps nothing is a GRPO step.

    Args:
        diffro_weight: w, fixed or over the RL steps.
        normalise: w is the ratio of the two norms: DiffRO's gradient is scaled to ``w * |g_grpo|``.
        diffro_beta: weight of the full-vocabulary KL within DiffRO's loss; GRPO has its own penalty (``beta``).
        diffro_filters: which samples DiffRO learns from; default `PositiveAdvantage`, the paper's.
        kwargs: see `GRPO` and `RelaxedModule`.
    """

    def __init__(
        self,
        *args: Any,
        diffro_weight: float | ops.Schedule = 1.0,
        normalise: bool = False,
        diffro_beta: float = 0.0,
        diffro_filters: list[DiffroFilter] | None = None,
        **kwargs: Any,
    ) -> None:
        filters: list[DiffroFilter] = [PositiveAdvantage()] if diffro_filters is None else diffro_filters
        super().__init__(*args, diffro_filters=filters, **kwargs)

        self.diffro_weight = diffro_weight if isinstance(diffro_weight, ops.Schedule) else ops.Schedule(diffro_weight)
        self.normalise, self.diffro_beta = normalise, diffro_beta
        self._relaxed: RelaxedStep | None = None
        self._step: Step | None = None
        if diffro_beta < 0:
            raise ValueError(f"GRPODiffRO: want diffro_beta >= 0, got {diffro_beta}")

    @property
    def needs_reference(self) -> bool:
        """Whether either loss has a KL penalty."""
        return self.beta > 0 or self.diffro_beta > 0

    def collect(self, batch: PromptBatch) -> Step:
        """As `GRPO.collect`; and what DiffRO learns from."""
        step = super().collect(batch)
        sampled = Sampled(step.batch, step.context, step.rollout, step.scores, step.groups)
        with agreed(self.trainer.strategy, "DiffRO's filters"):
            used, dropped = self.select(self.candidates(sampled, step.advantages))
            reference = self.reference_states(step.context, step.rollout) if self.diffro_beta else None
        self._relaxed = RelaxedStep(step.batch.rows, used, reference, dropped)
        return replace(step, dropped=step.dropped | {f"diffro/{name}": count for name, count in dropped.items()})

    def update(self, step: Step) -> dict[str, float]:
        """As `GRPO.update`, both gradients together."""
        assert self._relaxed is not None
        self._step = step
        used = self._relaxed.used
        figures = super().update(step) | {
            "diffro/used_share": float(used.float().mean()),
            "diffro/used_group_share": float(used.any(-1).float().mean()),
            "stop_rate": float(step.rollout.finished.float().mean()),
        }
        self._relaxed = self._step = None
        return figures

    def optimizer_step_clipped(self) -> dict[str, float]:
        """GRPO's gradient is in the parameters; compute DiffRO's, add it, step.

        A DiffRO gradient that is not finite is left out, and counted in ``diffro/skipped``.
        """
        step, relaxed = self._step, self._relaxed
        assert step is not None
        assert relaxed is not None
        strategy: Any = self.trainer.strategy
        parameters = list(self.policy.trainable().values())

        def taken() -> Any:
            if isinstance(strategy, PhaseMixin):
                strategy.sync_gradients(parameters)
            return take_gradients(parameters)

        grpo = taken()
        figures = self.relaxed_backward(relaxed, step.context, step.rollout, self.diffro_beta)
        diffro = taken()
        norms = compare(grpo, diffro)
        weight = self.diffro_weight.at(self.rl_step, self.num_steps)
        factor = weight
        if self.normalise:
            factor = weight * norms.first / norms.second if norms.second else 0.0
        finite = math.isfinite(norms.second) and math.isfinite(factor)
        put_sum(parameters, grpo, diffro, factor if finite else 0.0)
        ours = factor * norms.second if finite else 0.0
        figures = {name if "/" in name or name == "tau" else f"diffro/{name}": value for name, value in figures.items()}
        figures |= {
            "grad_norm/grpo": norms.first,
            "grad_norm/diffro": norms.second,
            "grad_cosine": norms.cosine,
            "diffro_share": ours / (norms.first + ours) if norms.first + ours else 0.0,
            "diffro/weight": factor,
            "diffro/skipped": float(not finite),
        }
        # The gradients are complete; the base class sums those of whole tensors over ranks once more.
        again = getattr(strategy, "loss_scale", 1.0) / strategy.world_size
        return figures | self._step_again(parameters, again)

    def _step_again(self, parameters: list[Any], factor: float) -> dict[str, float]:
        """`AudioRLModule.optimizer_step_clipped`, of gradients that it would otherwise sum ``1 / factor`` times."""
        if factor != 1.0:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)
        return super().optimizer_step_clipped()
