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
from lightning_audiorl.rewards.base import (
    FunctionReward,
    JudgedReward,
    Reward,
    RewardError,
    TextReward,
)
from lightning_audiorl.rewards.differentiable import (
    DifferentiableMix,
    DifferentiableReward,
    HeadLikelihood,
    TextLikelihood,
)
from lightning_audiorl.rewards.mix import RewardMix
from lightning_audiorl.rewards.speech import PredictedQuality, SpeakerSimilarity, SpeechAccuracy
from lightning_audiorl.rewards.speech_shape import Diversity, DurationConsistency, SpeechBounds

__all__ = [
    "Accuracy",
    "DifferentiableMix",
    "DifferentiableReward",
    "Diversity",
    "DurationConsistency",
    "EditCount",
    "ExactMatch",
    "ExpAccuracy",
    "FunctionReward",
    "Hallucination",
    "HeadLikelihood",
    "JudgedReward",
    "Keyword",
    "LengthError",
    "PredictedQuality",
    "Reward",
    "RewardError",
    "RewardMix",
    "SoftOverlong",
    "SpeakerSimilarity",
    "SpeechAccuracy",
    "SpeechBounds",
    "TextLikelihood",
    "TextReward",
]
