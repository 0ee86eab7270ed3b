"""DiffRO: a differentiable reward of relaxed speech codes."""

from __future__ import annotations

from lightning_audiorl.losses.diffro.filters import (
    Candidates,
    DiffroFilter,
    LengthRange,
    NoRepetition,
    PositiveAdvantage,
    RewardVariance,
    StopEmitted,
    TopShare,
)
from lightning_audiorl.losses.diffro.loss import DiffROLoss
from lightning_audiorl.losses.diffro.relaxation import Relaxation

__all__ = [
    "Candidates",
    "DiffROLoss",
    "DiffroFilter",
    "LengthRange",
    "NoRepetition",
    "PositiveAdvantage",
    "Relaxation",
    "RewardVariance",
    "StopEmitted",
    "TopShare",
]
