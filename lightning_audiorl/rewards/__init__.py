"""Rewards and their weighted mix."""

from lightning_audiorl.rewards.asr import (
    Accuracy,
    EditCount,
    ExactMatch,
    ExpAccuracy,
    Hallucination,
    Keyword,
    LengthError,
    SoftOverlong,
)
from lightning_audiorl.rewards.base import Reward, RewardError, TextReward
from lightning_audiorl.rewards.mix import RewardMix

__all__ = [
    "Accuracy",
    "EditCount",
    "ExactMatch",
    "ExpAccuracy",
    "Hallucination",
    "Keyword",
    "LengthError",
    "Reward",
    "RewardError",
    "RewardMix",
    "SoftOverlong",
    "TextReward",
]
