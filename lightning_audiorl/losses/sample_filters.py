"""Which samples of a rollout enter the loss. One filter, one small class; what each takes out is counted by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_audiorl.checks import check_number
from lightning_audiorl.ops import masked_mean
from lightning_audiorl.types import Rollout, Scores


class SampleFilter(ABC):
    """Keeps or drops samples before advantages are computed."""

    @abstractmethod
    def keep(self, scores: Scores, rollout: Rollout) -> Tensor:
        """[B, G] bool, True where the sample stays."""


@dataclass(frozen=True)
class MeanRewardBetween(SampleFilter):
    """Drops groups whose mean reward is outside [low, high]: too hard or too easy to learn from.

    Example:
        >>> total = torch.tensor([[0.2, 0.4], [1.0, 1.0]])
        >>> scores = Scores(total, torch.ones(2, 2, dtype=torch.bool), {})
        >>> rollout = ...  # not looked at
        >>> MeanRewardBetween(high=0.9).keep(scores, rollout)
        tensor([[ True,  True],
                [False, False]])
    """

    low: float = -float("inf")
    high: float = float("inf")

    def __post_init__(self) -> None:
        check_number("MeanRewardBetween.low", self.low, infinite=True)
        check_number("MeanRewardBetween.high", self.high, at_least=self.low, infinite=True)

    def keep(self, scores: Scores, rollout: Rollout) -> Tensor:
        mean = masked_mean(scores.total, scores.valid, dim=-1)
        return ((mean >= self.low) & (mean <= self.high))[:, None].expand_as(scores.valid)


@dataclass(frozen=True)
class MinRewardSpread(SampleFilter):
    """Drops groups whose rewards differ by less than ``spread`` (highest minus lowest).

    Example: the third sample's reward failed.
        >>> total = torch.tensor([[0.2, 0.3, float("nan")]])
        >>> scores = Scores(total, ~total.isnan(), {})
        >>> rollout = ...  # not looked at
        >>> MinRewardSpread(0.5).keep(scores, rollout)
        tensor([[False, False, False]])
    """

    spread: float = 1e-6

    def __post_init__(self) -> None:
        check_number("MinRewardSpread.spread", self.spread, at_least=0)

    def keep(self, scores: Scores, rollout: Rollout) -> Tensor:
        # A failed reward is neither the highest nor the lowest.
        high = scores.total.masked_fill(~scores.valid, -torch.inf).amax(-1)
        low = scores.total.masked_fill(~scores.valid, torch.inf).amin(-1)
        return ((high - low) >= self.spread)[:, None].expand_as(scores.valid)


@dataclass(frozen=True)
class Finished(SampleFilter):
    """Drops completions that the length cap cut. In ASR they are the hallucination: rather leave them in."""

    def keep(self, scores: Scores, rollout: Rollout) -> Tensor:
        return rollout.finished
