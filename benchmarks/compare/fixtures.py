"""What the scenarios read, made once, by the base build: recordings of tones, random judges, starts of the policies.

Its imports are names of the base build, which is the only one that runs it. The present build reads the folders, so
that their formats are compared too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import nn

TEXTS = ["one", "two three", "four five six", "seven", "eight nine", "zero one two"]
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = "".join(sorted(set("".join(WORDS)))) + " "
SPEAKERS = ("ann", "bob", "cy")
RATE_HZ = 8000


def write_tone(path: Path, seconds: float, rate_hz: int, hz: float) -> None:
    """A sine at half of full scale."""
    wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave.astype("float32"), rate_hz)


def tones(folder: Path) -> None:
    """Six clips with texts of one to three words, and their manifest."""
    lines = []
    for number, text in enumerate(TEXTS):
        seconds = 0.2 + 0.1 * number
        write_tone(folder / f"{number}.wav", seconds, 16000, 200.0 + 100 * number)
        row: dict[str, Any] = {"audio_filepath": f"{number}.wav", "text": text, "duration": seconds}
        lines.append(json.dumps(row))
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")


def digits(folder: Path) -> None:
    """A folder in the layout of the Free Spoken Digit Dataset: 3 speakers x 10 digits x 11 very short tones."""
    for number, speaker in enumerate(SPEAKERS):
        for digit in range(10):
            for index in range(11):
                seconds = 0.05 + 0.002 * digit + 0.001 * index
                path = folder / "recordings" / f"{digit}_{speaker}_{index}.wav"
                write_tone(path, seconds, RATE_HZ, 200.0 + 50 * digit + 10 * number)


def lively(module: nn.Module, scale: float, seed: int) -> None:
    """Move all matrices: a newborn model says much the same of every prompt."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def recognisers(folder: Path) -> None:
    """Starts of the two families that listen."""
    from lightning_audiorl.models import (
        FunAsrNanoPolicy,
        TinyFunAsrNano,
        TinyWhisper,
        WhisperPolicy,
    )

    sizes: dict[str, Any] = {"width": 32, "encoder_layers": 1, "heads": 2}
    fun_asr_nano = FunAsrNanoPolicy(TinyFunAsrNano(WORDS, lm_layers=2, **sizes))
    whisper = WhisperPolicy(
        TinyWhisper(WORDS, decoder_layers=2, chunk_length_s=2, num_mel_bins=16, **sizes)
    )
    for name, policy, scale in (("fun_asr_nano", fun_asr_nano, 0.3), ("whisper", whisper, 0.5)):
        lively(policy, scale, 2)
        (folder / name).mkdir()
        policy.export(str(folder / name))


def speakers(folder: Path) -> None:
    """Codec, start, judges and Token2Text of the family that speaks."""
    from lightning_audiorl.codecs import TinyCodec
    from lightning_audiorl.codecs.tiny import TinyCodecConfig
    from lightning_audiorl.judges import EcapaNetwork, LogMelGru, MfccConv
    from lightning_audiorl.models import SpeechLimits, SpeechLMPolicy, TinySpeechLM
    from lightning_audiorl.models.reference import content_hash
    from lightning_audiorl.token2text import Token2Text

    codec = TinyCodec(
        TinyCodecConfig(
            RATE_HZ, levels=(4, 4), num_mels=24, n_fft=256, width=16, layers=1, iterations=2
        )
    )
    codec.save(str(folder / "codec"))
    start = TinySpeechLM(WORDS, width=32, layers=1, heads=2, max_positions=128, num_codes=16)
    policy = SpeechLMPolicy(start, codec, limits=SpeechLimits(min_prompt_s=0.05))
    lively(policy.model, 0.5, 3)
    (folder / "speech_lm").mkdir()
    policy.export(str(folder / "speech_lm"))
    judges = {
        "judge": LogMelGru(LETTERS, RATE_HZ, num_mels=16, width=16),
        "held_out_judge": MfccConv(LETTERS, RATE_HZ, num_cepstra=12, width=16, dilations=(1,)),
        "encoder": EcapaNetwork(
            RATE_HZ, num_mels=20, width=16, attention_width=8, se_width=8, dim=6
        ),
        "token2text": Token2Text(
            16,
            LETTERS,
            {"speaker": list(SPEAKERS)},
            codec_hash=content_hash(codec),
            width=16,
            dilations=(1,),
            heads=2,
            decoder_layers=1,
        ),
    }
    for seed, (name, network) in enumerate(judges.items()):
        lively(network, 0.2, seed)
        network.save(str(folder / name))


def make(folder: Path) -> None:
    """Everything, into a new folder."""
    tones(folder / "tones")
    digits(folder / "fsdd")
    recognisers(folder)
    speakers(folder)
