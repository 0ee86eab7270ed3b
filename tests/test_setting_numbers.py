"""The number of a setting is a number: NaN, infinity and senseless signs are refused where the object is made."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from lightning_audiorl.callbacks import HackingWatch, PhaseProgressBar, SampleLogger
from lightning_audiorl.codecs import CodecTraining, TinyCodec
from lightning_audiorl.data import AsrDataModule, NonSpeech
from lightning_audiorl.data.audio.augment import Augment
from lightning_audiorl.data.draws import check_span
from lightning_audiorl.data.mix.selection.by_metadata import Length, RandomControl
from lightning_audiorl.data.mix.selection.by_tts_samples import PassRate
from lightning_audiorl.engine import EvalDecoding, Optim, Sampler
from lightning_audiorl.judges import CtcTraining, MfccConv
from lightning_audiorl.judges.base import Judge
from lightning_audiorl.losses import LossSettings, PolicyGradient, WeightedGradients
from lightning_audiorl.losses.diffro.filters import (
    LengthRange,
    NoRepetition,
    PositiveAdvantage,
    RewardVariance,
    TopShare,
)
from lightning_audiorl.losses.diffro.relaxation import Relaxation
from lightning_audiorl.losses.sample_filters import MeanRewardBetween, MinRewardSpread
from lightning_audiorl.models import Finetune
from lightning_audiorl.models.tts.limits import SpeechLimits
from lightning_audiorl.ops import CISPO, DAPO, GRPO, GSPO
from lightning_audiorl.ops.relax import Schedule, TauSchedule
from lightning_audiorl.rewards import (
    Accuracy,
    Diversity,
    DurationConsistency,
    ExpAccuracy,
    Keyword,
    SoftOverlong,
    SpeechBounds,
    TextLikelihood,
)
from lightning_audiorl.strategies import PhaseSingleDevice
from lightning_audiorl.text import RunawayLength, Truncation
from lightning_audiorl.types import Decoding
from tests.algorithms.speaking import make_module as make_speaking
from tests.algorithms.tiny import make_grpo
from tests.codecs.test_training import SMALL

INF = math.inf


def pair(make: Callable[..., Any], setting: str, first: float) -> Callable[[Any], Any]:
    """Makes an object whose setting is (first, value)."""
    return lambda value: make(**{setting: (first, value)})


def codec_training(setting: str) -> Callable[[Any], Any]:
    return lambda value: CodecTraining(TinyCodec(SMALL), **{"num_steps": 1, setting: value})


def judge_training(setting: str) -> Callable[[Any], Any]:
    network = MfccConv(characters="ab", width=8, dilations=(1,))
    return lambda value: CtcTraining(network, **{"num_steps": 1, setting: value})


# What is made, its setting, and values beside NaN that are refused; infinity is where nothing else is said.
SETTINGS: list[tuple[Callable[..., Any], str, list[Any]]] = [
    (Optim, "lr", [INF, 0.0, -1e-5]),
    (Optim, "warmup_steps", [INF, -1, 0.5]),
    (Optim, "min_lr_ratio", [INF, -5, 1.5]),
    (Optim, "weight_decay", [INF, -1]),
    (Optim, "max_grad_norm", [INF, -1]),
    (Optim, "max_skipped_updates", [INF, -1]),
    (Decoding, "temperature", [INF, -0.1]),
    (Decoding, "top_p", [INF, 0, 1.1]),
    (Decoding, "top_k", [INF, -1, 1.5]),
    (Decoding, "max_new_tokens", [INF, 0]),
    (Decoding, "min_cap", [INF, 0]),
    (Decoding, "tokens_per_second", [INF, -1]),
    (EvalDecoding, "num_samples", [INF, 0, -1]),
    (Sampler, "group_size", [INF, 1, 2.5]),
    (Sampler, "batch_size", [INF, -1]),
    (partial(LossSettings, None, None), "num_updates", [INF, 0]),
    (partial(LossSettings, None, None), "chunk_size", [INF, -1]),
    (PolicyGradient, "beta", [INF, -0.1]),
    (PolicyGradient, "sampler_cap", [INF, 0, -1]),
    (GRPO, "clip_low", [INF, -0.1]),
    (GRPO, "clip_high", [-INF, -0.1]),
    (DAPO, "clip_high", [-0.1]),
    (GSPO, "clip_low", [INF, -0.1]),
    (CISPO, "clip_low", [INF, -0.1]),
    (CISPO, "clip_high", [-0.1]),
    (Schedule, "start", [INF, -1]),
    (partial(Schedule, 1.0, 0.5, "linear"), "steps", [INF, -1]),
    (TauSchedule, "start", [INF, 0, -1]),
    (WeightedGradients, "weight", [INF, -1]),
    (Relaxation, "num_draws", [INF, 0]),
    (Relaxation, "unrolled", [INF, -1]),
    (MeanRewardBetween, "low", []),
    (MeanRewardBetween, "high", []),
    (partial(MeanRewardBetween, 0.5), "high", [0.4]),
    (MinRewardSpread, "spread", [INF, -1]),
    (PositiveAdvantage, "threshold", [INF]),
    (RewardVariance, "min_std", [INF, -1]),
    (LengthRange, "low", [INF, -1]),
    (LengthRange, "high", [-1]),
    (NoRepetition, "max_run", [INF, 0]),
    (TopShare, "share", [INF, 0, 2]),
    (Accuracy, "weight", [INF, -1, 1e7]),
    (Accuracy, "floor", [INF, -INF, 1]),
    (ExpAccuracy, "scale", [INF, 0]),
    (Keyword, "neutral", [INF, 0]),
    (partial(SoftOverlong, Decoding()), "buffer_share", [INF, 0]),
    (DurationConsistency, "floor", [-INF, 0]),
    (Diversity, "distance_weight", [INF, -1]),
    (Diversity, "melody_weight", [INF, -1]),
    (Diversity, "full_melody_semitones", [INF, 0]),
    (TextLikelihood, "weight", [INF, -1]),
    (Finetune, "lora_rank", [INF, 0, -1]),
    (Finetune, "lora_alpha", [INF, 0]),
    (Finetune, "lora_dropout", [INF, 1, -0.1]),
    (Finetune, "lm_layers", [INF, -1]),
    (SpeechLimits, "tokens_per_char", [INF, -1]),
    (SpeechLimits, "min_prompt_dbfs", []),
    (HackingWatch, "tolerance", [INF]),
    (HackingWatch, "reward_tolerance", [INF]),
    (HackingWatch, "gap_tolerance", [INF, -1]),
    (HackingWatch, "drift_tolerance", [INF, -1]),
    (HackingWatch, "agreement_tolerance", [INF, -1]),
    (HackingWatch, "window", [INF, 0]),
    (HackingWatch, "false_alarms", [0.0, 1.0, -0.1]),
    (SampleLogger, "max_audio_s", [-1]),
    (SampleLogger, "max_audio_mib", [-1]),
    (PhaseProgressBar, "refresh_s", [INF, 0]),
    (PhaseProgressBar, "line_every_s", [0]),
    (NonSpeech, "max_s", [INF]),
    (Length, "min_s", [INF, -1]),
    (Length, "max_s", [-1]),
    (partial(RandomControl, 5), "bin_s", [INF, 0]),
    (PassRate, "max_cer", [INF, -1]),
    (RunawayLength, "max_ratio", [INF, 0]),
    (Truncation, "min_ratio", [INF, -1]),
    (partial(Judge, "name"), "sample_rate_hz", [0]),
    (partial(Judge, "name", 16000), "min_duration_s", [INF, -1]),
    (AsrDataModule, "batch_size", [INF, 0]),
    (AsrDataModule, "max_batch_s", [0, -1]),
    (AsrDataModule, "max_duration_s", [0, -1]),
    (AsrDataModule, "sample_rate_hz", [INF, 0]),
    (PhaseSingleDevice, "budget_gb", [INF, -1]),
    (make_grpo, "num_steps", [INF, 0]),
    (make_grpo, "beta", [INF, -1]),
    (make_speaking, "beta", [INF, -1]),
]
PAIRS: list[tuple[Callable[[Any], Any], str, list[Any]]] = [
    (pair(Optim, "betas", 0.9), "betas", [INF, 1.0, -0.1]),
    (pair(Augment, "noise_snr_db", 5.0), "noise_snr_db", [INF, 1.0]),
    (pair(Augment, "gain_db", -6.0), "gain_db", [INF, -7.0]),
    (pair(NonSpeech, "level_db", -30.0), "level_db", [INF]),
    (pair(SpeechBounds, "tokens_per_second", 1.0), "tokens_per_second", [0.5]),
    (lambda value: check_span("X.gap_s", (0.1, value), 0.0), "gap_s", [INF, 0.05]),
    *((codec_training(name), name, [INF, -1.0]) for name in ("lr", "crop_s", "squared")),
    *(
        (judge_training(name), name, bad)
        for name, bad in (("lr", [INF, 0.0]), ("clip_norm", [0.0]))
    ),
    (judge_training("vocoded_probability"), "vocoded_probability", [INF, -1.0]),
]


def cases() -> list[Any]:
    """(makes an object with a value, the setting, the values that are refused)."""
    made = [
        (lambda v, m=make, s=setting: m(**{s: v}), setting, bad) for make, setting, bad in SETTINGS
    ]
    return [*made, *PAIRS]


@pytest.mark.fault(
    "Settings and messages",
    "NaN, infinity or a senseless sign as the number of a setting",
    "it is refused where the object is made, with the setting's name and what it may be",
)
@pytest.mark.parametrize(
    ("make", "setting", "refused"),
    cases(),
    ids=[f"{number}-{case[1]}" for number, case in enumerate(cases())],
)
def test_a_senseless_number_is_refused(
    make: Callable[[Any], Any], setting: str, refused: list[Any]
) -> None:
    faults = []
    for value in (math.nan, *refused):
        try:
            make(value)
        except ValueError as error:
            if setting not in str(error):
                faults.append(f"{value} is refused without the name of the setting: {error}")
        else:
            faults.append(f"{value} is taken")
    assert not faults


def test_what_makes_sense_is_taken() -> None:
    """Bounds that bound nothing may be infinite; whole numbers may be numpy's."""
    MeanRewardBetween(-INF, INF)
    LengthRange(high=INF)
    GRPO(clip_high=INF)
    Decoding(temperature=0.0, tokens_per_second=0.0)
    Optim(lr=1, max_grad_norm=0, min_lr_ratio=0.0, betas=(0.0, 0.99))
    Length(max_s=INF)
