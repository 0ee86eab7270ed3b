"""Which samples of a rollout enter the loss. One filter, one small class; what each takes out is counted by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_audiorl.ops import masked_mean
from lightning_audiorl.types import Rollout, Scores


class SampleFilter(ABC):
    """Keeps or drops samples before advantages are computed."""

    @abstractmethod
    def keep(self, scores: Scores, rollout: Rollout) -> Tensor:
        """[B, G] bool, True where the sample stays."""


@dataclass(frozen=True)
class MeanRewardBetween(SampleFilter):
    """Drops groups whose mean reward is outside [low, high]: too hard or too easy to learn from."""

    low: float = -float("inf")
    high: float = float("inf")

    def keep(self, scores: Scores, rollout: Rollout) -> Tensor:
        mean = masked_mean(scores.total, scores.valid, dim=-1)
        return ((mean >= self.low) & (mean <= self.high))[:, None].expand_as(scores.valid)


@dataclass(frozen=True)
class MinRewardSpread(SampleFilter):
    """Drops groups whose rewards differ by less than ``spread`` (highest minus lowest)."""

    spread: float = 1e-6

    def keep(self, scores: Scores, rollout: Rollout) -> Tensor:
        high = scores.total.masked_fill(~scores.valid, -torch.inf).amax(-1)
        low = scores.total.masked_fill(~scores.valid, torch.inf).amin(-1)
        return ((high - low) >= self.spread)[:, None].expand_as(scores.valid)


@dataclass(frozen=True)
class Finished(SampleFilter):
    """Drops completions that the length cap cut. In ASR they are the hallucination: rather leave them in."""

    def keep(self, scores: Scores, rollout: Rollout) -> Tensor:
        return rollout.finished
