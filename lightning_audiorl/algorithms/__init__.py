"""Algorithms, one LightningModule each."""

from __future__ import annotations

from lightning_audiorl.algorithms.base import AudioRLModule
from lightning_audiorl.algorithms.evaluation import EvalDecoding
from lightning_audiorl.algorithms.filters import Finished, MeanRewardBetween, MinRewardSpread, SampleFilter
from lightning_audiorl.algorithms.grpo import GRPO
from lightning_audiorl.algorithms.optim import Optim
from lightning_audiorl.algorithms.sft import SFT

__all__ = [
    "GRPO",
    "SFT",
    "AudioRLModule",
    "EvalDecoding",
    "Finished",
    "MeanRewardBetween",
    "MinRewardSpread",
    "Optim",
    "SampleFilter",
]
