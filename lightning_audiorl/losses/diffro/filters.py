"""Which samples DiffRO learns from: one that loops or never stops poisons a differentiable loss (arXiv 2509.18569).

One filter, one small class; they apply in order, and what each takes out is counted under its name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from lightning_audiorl.checks import check_count, check_number
from lightning_audiorl.fields import Checked, Shape
from lightning_audiorl.ops import Advantages, masked_mean
from lightning_audiorl.types import Rollout, Scores, Utterance


@dataclass(frozen=True)
class Candidates(Checked):
    """The samples of a step.

    Args:
        rows: B.
        rollout: of B prompts, G samples each.
        codes: [B, G, T] int64, -1 where a token is none (the stop token, padding).
        scores, advantages: of the samples; all alike where nothing was rewarded.
    """

    rows: tuple[Utterance, ...]
    rollout: Rollout
    codes: Annotated[Tensor, Shape("B G T")]
    scores: Scores
    advantages: Advantages

    @property
    def num_codes(self) -> Tensor:
        """[B, G] codes of each sample."""
        return (self.codes >= 0).sum(-1)


class DiffroFilter(ABC):
    """Keeps or drops samples."""

    #: Whether it looks at rewards or advantages.
    needs_rewards: ClassVar[bool] = False

    @abstractmethod
    def keep(self, candidates: Candidates) -> Tensor:
        """[B, G] bool, True where the sample stays."""


@dataclass(frozen=True)
class PositiveAdvantage(DiffroFilter):
    """Keeps samples whose advantage is above ``threshold``: the filter of the paper.

    A sample that GRPO does not use has no advantage, and is dropped too.
    """

    threshold: float = 0.0
    needs_rewards: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("PositiveAdvantage.threshold", self.threshold)

    def keep(self, candidates: Candidates) -> Tensor:
        return candidates.advantages.used & (candidates.advantages.values > self.threshold)


@dataclass(frozen=True)
class RewardVariance(DiffroFilter):
    """Keeps groups whose valid rewards have a standard deviation of at least ``min_std``."""

    min_std: float = 1e-3
    needs_rewards: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("RewardVariance.min_std", self.min_std, at_least=0)

    def keep(self, candidates: Candidates) -> Tensor:
        total = candidates.scores.total
        valid = candidates.scores.valid
        centred = total - masked_mean(total, valid, dim=-1)[:, None]
        std = masked_mean(centred.square(), valid, dim=-1).sqrt()
        return (std >= self.min_std)[:, None].expand_as(valid)


@dataclass(frozen=True)
class StopEmitted(DiffroFilter):
    """Keeps samples that ended by themselves."""

    def keep(self, candidates: Candidates) -> Tensor:
        return candidates.rollout.finished


@dataclass(frozen=True)
class LengthRange(DiffroFilter):
    """Keeps samples whose number of codes is within ``low`` and ``high`` times a unit.

    Args:
        low, high: both included.
        unit: "codes" (the unit is 1), "characters" of the row's text, or the "median" of the group.
    """

    low: float = 0.0
    high: float = math.inf
    unit: Literal["codes", "characters", "median"] = "codes"

    def __post_init__(self) -> None:
        check_number("LengthRange.low", self.low)
        if not 0 <= self.low <= self.high or self.unit not in ("codes", "characters", "median"):
            raise ValueError(
                f"LengthRange: want 0 <= low <= high and a unit of codes, characters or median; got {self.low}, "
                f"{self.high}, {self.unit!r}"
            )

    def keep(self, candidates: Candidates) -> Tensor:
        length = candidates.num_codes.float()
        unit = torch.ones_like(length[:, :1])
        if self.unit == "characters":
            unit = length.new_tensor([[float(len(row.text))] for row in candidates.rows])
        elif self.unit == "median":
            unit = length.median(-1, keepdim=True).values
        return (length >= self.low * unit) & (length <= self.high * unit)


@dataclass(frozen=True)
class NoRepetition(DiffroFilter):
    """Drops samples that go round in a loop.

    Args:
        max_period: codes of the longest loop that is looked for; 1 finds only a code that stands still.
        max_run: codes in a row, each the same as one period before, that are still let through.
    """

    max_period: int = 8
    max_run: int = 16

    def __post_init__(self) -> None:
        check_count("NoRepetition.max_period", self.max_period, at_least=1)
        check_count("NoRepetition.max_run", self.max_run, at_least=1)

    def keep(self, candidates: Candidates) -> Tensor:
        codes = candidates.codes
        longest = torch.zeros_like(codes[..., 0])
        # A loop of n codes is the sequence laid over itself n places on.
        for period in range(1, min(self.max_period, codes.shape[-1] - 1) + 1):
            later = codes[..., period:]
            earlier = codes[..., :-period]
            same = (later == earlier) & (later >= 0)
            longest = torch.maximum(longest, _longest_run(same))
        return longest <= self.max_run


def _longest_run(same: Tensor) -> Tensor:
    """[..., T] bool -> [...] length of the longest stretch of True."""
    count = same.long().cumsum(-1)
    # At each place: how many were True before the last False. What has been counted since is the present stretch.
    at_breaks = torch.where(same, 0, count).cummax(-1).values
    return (count - at_breaks).amax(-1)


@dataclass(frozen=True)
class TopShare(DiffroFilter):
    """Keeps the ``share`` of each group's samples with the highest reward: at least one, the first among equals."""

    share: float = 0.5
    needs_rewards: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"TopShare: want a share above 0 and at most 1, got {self.share}")

    def keep(self, candidates: Candidates) -> Tensor:
        valid = candidates.scores.valid
        # Stable, so that of equal rewards the first sample is kept, on any device.
        order = candidates.scores.total.masked_fill(~valid, -torch.inf).argsort(
            dim=-1, descending=True, stable=True
        )
        rank = order.argsort(-1)
        num = (valid.sum(-1, keepdim=True) * self.share).ceil().clamp(min=1)
        return valid & (rank < num)
