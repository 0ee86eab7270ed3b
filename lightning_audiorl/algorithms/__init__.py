"""Algorithms, one LightningModule each."""

from __future__ import annotations

from lightning_audiorl.algorithms.base import AudioRLModule
from lightning_audiorl.algorithms.diffro import DiffRO
from lightning_audiorl.algorithms.diffro_filters import (
    Candidates,
    DiffroFilter,
    LengthRange,
    NoRepetition,
    PositiveAdvantage,
    RewardVariance,
    StopEmitted,
    TopShare,
)
from lightning_audiorl.algorithms.evaluation import EvalDecoding
from lightning_audiorl.algorithms.filters import Finished, MeanRewardBetween, MinRewardSpread, SampleFilter
from lightning_audiorl.algorithms.grpo import GRPO
from lightning_audiorl.algorithms.grpo_diffro import GRPODiffRO
from lightning_audiorl.algorithms.optim import Optim
from lightning_audiorl.algorithms.relaxation import Relaxation
from lightning_audiorl.algorithms.sft import SFT

__all__ = [
    "GRPO",
    "SFT",
    "AudioRLModule",
    "Candidates",
    "DiffRO",
    "DiffroFilter",
    "EvalDecoding",
    "Finished",
    "GRPODiffRO",
    "LengthRange",
    "MeanRewardBetween",
    "MinRewardSpread",
    "NoRepetition",
    "Optim",
    "PositiveAdvantage",
    "Relaxation",
    "RewardVariance",
    "SampleFilter",
    "StopEmitted",
    "TopShare",
]
