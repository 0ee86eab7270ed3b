"""Algorithms, one LightningModule each: the loop of `engine` with the losses that make it that algorithm."""

from __future__ import annotations

from lightning_audiorl.algorithms.diffro import DiffRO
from lightning_audiorl.algorithms.grpo import GRPO
from lightning_audiorl.algorithms.grpo_diffro import GRPODiffRO
from lightning_audiorl.algorithms.sft import SFT
from lightning_audiorl.engine import EvalDecoding, Optim, RLModule
from lightning_audiorl.losses import Finished, MeanRewardBetween, MinRewardSpread, SampleFilter
from lightning_audiorl.losses.diffro import (
    Candidates,
    DiffroFilter,
    LengthRange,
    NoRepetition,
    PositiveAdvantage,
    Relaxation,
    RewardVariance,
    StopEmitted,
    TopShare,
)

#: The name of `RLModule` before the loop was turned over.
AudioRLModule = RLModule

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
    "RLModule",
    "Relaxation",
    "RewardVariance",
    "SampleFilter",
    "StopEmitted",
    "TopShare",
]
