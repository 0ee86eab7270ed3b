"""A tiny system of speech synthesis with random weights: policy, judges, rows, and runs of a second or two."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from lightning_audiorl.algorithms import GRPO, EvalDecoding, Optim
from lightning_audiorl.codecs.tiny import TinyCodec, TinyCodecConfig
from lightning_audiorl.data import FsddSpeech, TtsDataModule
from lightning_audiorl.data.corpora.fsdd import DIGIT_WORDS
from lightning_audiorl.data.datamodules.asr import Subset
from lightning_audiorl.judges import (
    AsrJudge,
    CtcJudge,
    EcapaEncoder,
    EcapaNetwork,
    LogMelGru,
    MfccConv,
    SpeakerEncoder,
    XvectorEncoder,
    XvectorNetwork,
)
from lightning_audiorl.metrics import SpeechEvaluation
from lightning_audiorl.models import Finetune, SpeechLimits, SpeechLMPolicy, TinySpeechLM
from lightning_audiorl.rewards import DurationConsistency, RewardMix, SpeechAccuracy
from lightning_audiorl.types import Decoding

RATE_HZ = 8000
LM = TinySpeechLM(DIGIT_WORDS, width=32, layers=1, heads=2, max_positions=128, num_codes=16)
CODEC = TinyCodecConfig(
    RATE_HZ, levels=(4, 4), num_mels=24, n_fft=256, width=16, layers=1, iterations=2
)
LETTERS = "".join(sorted(set("".join(DIGIT_WORDS)))) + " "
SAMPLED = Decoding(max_new_tokens=20, min_cap=20)
GREEDY = Decoding(temperature=0.0, max_new_tokens=12, min_cap=12)


def speech_policy(finetune: Finetune | None = None, **changes: Any) -> SpeechLMPolicy:
    """Takes prompts of the very short recordings of `fake_fsdd`."""
    return SpeechLMPolicy(
        LM, TinyCodec(CODEC), finetune=finetune, limits=SpeechLimits(min_prompt_s=0.05), **changes
    )


@cache
def judge_folders(folder: Path) -> dict[str, Path]:
    """Folders of four random judges; the same weights every time."""
    networks = {
        "judge": LogMelGru(LETTERS, RATE_HZ, num_mels=16, width=16),
        "held_out_judge": MfccConv(LETTERS, RATE_HZ, num_cepstra=12, width=16, dilations=(1,)),
        "encoder": EcapaNetwork(
            RATE_HZ, num_mels=20, width=16, attention_width=8, se_width=8, dim=6
        ),
        "held_out_encoder": XvectorNetwork(RATE_HZ, num_cepstra=12, width=8, dim=6),
    }
    for name, network in networks.items():
        network.save(str(folder / name))
    return {name: folder / name for name in networks}


def judge(folder: Path) -> AsrJudge:
    """The one that rewards."""
    return CtcJudge(str(judge_folders(folder)["judge"]))


def encoder(folder: Path) -> SpeakerEncoder:
    """The one that rewards."""
    return EcapaEncoder(str(judge_folders(folder)["encoder"]))


def evaluation(folder: Path) -> SpeechEvaluation:
    """All four listeners."""
    folders = judge_folders(folder)
    held_out = (
        CtcJudge(str(folders["held_out_judge"])),
        XvectorEncoder(str(folders["held_out_encoder"])),
    )
    return SpeechEvaluation(judge(folder), held_out[0], encoder(folder), held_out[1])


def rows(root: str, part: Any = "train", **settings: Any) -> FsddSpeech:
    """Digits of `fake_fsdd`, each with a prompt of its speaker."""
    settings = {
        "num_words": (1, 3),
        "prompt_words": (2, 3),
        "num_rows": 20,
        "gap_s": (0.0, 0.02),
    } | settings
    return FsddSpeech(root, part, edge_s=(0.0, 0.02), **settings)


def speech_data(root: str, **settings: Any) -> TtsDataModule:
    """Digits to train on, four to evaluate on."""
    settings = {
        "train": [Subset(rows(root))],
        "val": {"digits": rows(root, "dev", num_rows=4)},
        "test": {"digits": rows(root, "test", num_rows=2)},
        "batch_size": 2,
        "sample_rate_hz": RATE_HZ,
        "prompt_s": (0.05, 5.0),
    } | settings
    return TtsDataModule(**settings)


def speech_grpo(
    folder: Path, num_steps: int = 2, policy: SpeechLMPolicy | None = None, **settings: Any
) -> GRPO:
    """GRPO with R1 and R2 over random parts; ``folder`` holds the judges."""
    settings = {
        "rewards": RewardMix([SpeechAccuracy(judge(folder), "exp"), DurationConsistency(0.5)]),
        "group_size": 3,
        "decoding": SAMPLED,
        "optim": Optim(lr=1e-2),
        "eval_decodings": {"greedy": EvalDecoding(GREEDY)},
        "evaluation": evaluation(folder),
    } | settings
    return GRPO(policy or speech_policy(), num_steps, **settings)
