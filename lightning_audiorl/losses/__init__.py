"""Losses: what a new algorithm is. Each is one class; the engine runs stages, micro-batches and ranks around it."""

from __future__ import annotations

from lightning_audiorl.losses.advantages import GroupAdvantages
from lightning_audiorl.losses.base import Loss, LossSettings, Prepared, ReferenceStates, Scorer
from lightning_audiorl.losses.combine import WeightedGradients
from lightning_audiorl.losses.cross_entropy import CrossEntropy
from lightning_audiorl.losses.diffro import DiffROLoss
from lightning_audiorl.losses.policy_gradient import PolicyGradient
from lightning_audiorl.losses.reference_sample import ReferenceSample
from lightning_audiorl.losses.sample_filters import (
    Finished,
    MeanRewardBetween,
    MinRewardSpread,
    SampleFilter,
)
from lightning_audiorl.losses.step import MicroBatch, RLStep, ScoredRollout

__all__ = [
    "CrossEntropy",
    "DiffROLoss",
    "Finished",
    "GroupAdvantages",
    "Loss",
    "LossSettings",
    "MeanRewardBetween",
    "MicroBatch",
    "MinRewardSpread",
    "PolicyGradient",
    "Prepared",
    "RLStep",
    "ReferenceSample",
    "ReferenceStates",
    "SampleFilter",
    "ScoredRollout",
    "Scorer",
    "WeightedGradients",
]
