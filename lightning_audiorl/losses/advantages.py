"""From rewards to advantages: which samples count, and how each compares with its group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_audiorl import ops
from lightning_audiorl.losses.sample_filters import SampleFilter
from lightning_audiorl.types import Rollout, Scores


@dataclass(frozen=True)
class GroupAdvantages:
    """Advantages within each group, of the samples that pass the filters.

    Args:
        kind: see `ops.group_advantages`.
        drop_zero_variance: groups with equal rewards leave the loss (DAPO).
        filters: which samples enter, in order.
    """

    kind: ops.AdvantageKind = "normalised"
    drop_zero_variance: bool = False
    filters: Sequence[SampleFilter] = ()

    def estimate(self, scores: Scores, rollout: Rollout) -> tuple[ops.Advantages, dict[str, int]]:
        """Advantages [B, G], and the number of samples that each filter took out."""
        valid = scores.valid
        dropped: dict[str, int] = {}

        for rule in self.filters:
            keep = rule.keep(scores, rollout)
            name = type(rule).__name__
            dropped[name] = dropped.get(name, 0) + int((valid & ~keep).sum())
            valid = valid & keep

        advantages = ops.group_advantages(
            scores.total, valid, self.kind, drop_zero_variance=self.drop_zero_variance
        )
        return advantages, dropped
