"""From rewards to advantages: which samples count, and how each compares with its group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_audiorl import ops
from lightning_audiorl.losses.reference_sample import ReferenceSample
from lightning_audiorl.losses.sample_filters import SampleFilter
from lightning_audiorl.types import Rollout, Scores


@dataclass(frozen=True)
class GroupAdvantages:
    """Advantages within each group, of the samples that pass the filters.

    Args:
        kind: see `ops.group_advantages`.
        drop_zero_variance: groups with equal rewards leave the loss (DAPO).
        filters: which samples enter, in order.
        reference: how the reference text is one more sample of its group; None is not at all.
    """

    kind: ops.AdvantageKind = "normalised"
    drop_zero_variance: bool = False
    filters: Sequence[SampleFilter] = ()
    reference: ReferenceSample | None = None

    def estimate(
        self,
        scores: Scores,
        rollout: Rollout,
        reference_rewards: Tensor | None = None,
    ) -> tuple[ops.Advantages, dict[str, int]]:
        """Advantages [B, G], and the number of samples that each filter took out.

        A sample that several filters drop is counted for the first of them.

        Args:
            scores: rewards [B, G] of the samples.
            rollout: the samples.
            reference_rewards: [B] of the reference texts, NaN where there is none; None leaves them out.

        Example:
            >>> import torch
            >>> total = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
            >>> scores = Scores(total, torch.ones(2, 2, dtype=torch.bool), {})
            >>> rollout = ...  # no filter looks at it
            >>> advantages, dropped = GroupAdvantages("centred").estimate(scores, rollout)
            >>> advantages.values
            tensor([[-1.,  1.],
                    [ 0.,  0.]])
        """
        valid = scores.valid
        dropped: dict[str, int] = {}

        for rule in self.filters:
            keep = rule.keep(scores, rollout)
            # Two filters of one class share a count.
            name = type(rule).__name__
            dropped[name] = dropped.get(name, 0) + int((valid & ~keep).sum())
            valid = valid & keep

        advantages = ops.group_advantages(
            scores.total, valid, self.kind, drop_zero_variance=self.drop_zero_variance
        )
        if self.reference is None or reference_rewards is None:
            return advantages, dropped

        wanted = self.reference.wanted(reference_rewards, scores)
        return self._with_reference(advantages, scores, valid, reference_rewards, wanted), dropped

    def _with_reference(
        self,
        own: ops.Advantages,
        scores: Scores,
        valid: Tensor,
        reference_rewards: Tensor,
        wanted: Tensor,
    ) -> ops.Advantages:
        """Advantages among G + 1; what is counted stays that of the G samples."""
        rewards = torch.cat([scores.total, reference_rewards.nan_to_num()[:, None]], dim=1)
        valid = torch.cat([valid, wanted[:, None]], dim=1)
        together = ops.group_advantages(
            rewards, valid, self.kind, drop_zero_variance=self.drop_zero_variance
        )
        is_used = together.used[:, -1]
        return replace(
            own,
            values=together.values[:, :-1],
            used=together.used[:, :-1],
            reference=together.values[:, -1].masked_fill(~is_used, float("nan")),
        )
