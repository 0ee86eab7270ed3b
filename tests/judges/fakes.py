"""Judges whose answers a test knows in advance, and speech for them to hear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_audiorl.judges import AsrJudge, SpeakerEncoder
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.types import Hypothesis, Speech, Utterance

RATE_HZ = 8000


class FakeJudge(AsrJudge):
    """Hears transcript number ``round(100 * first sample)``; an exception in its place is raised."""

    def __init__(
        self, transcripts: Sequence[str | Exception | None], name: str = "fake", batch_size: int = 3
    ) -> None:
        super().__init__(name, RATE_HZ, batch_size, min_duration_s=0.0)
        self.transcripts = list(transcripts)
        self.calls: list[int] = []

    def listen(self, waveforms: list[Tensor], rows: list[Utterance]) -> list[str | None]:
        self.calls.append(len(waveforms))
        answers: list[str | None] = []
        for wave in waveforms:
            answer = self.transcripts[round(100 * float(wave[0]))]
            if isinstance(answer, Exception):
                raise answer
            answers.append(answer)
        return answers


class FakeEncoder(SpeakerEncoder):
    """The first sample is the angle of the embedding in the plane; NaN from a broken one raises."""

    def __init__(self, name: str = "fake-encoder", broken_at: float | None = None) -> None:
        super().__init__(name, RATE_HZ, min_duration_s=0.0)
        self.broken_at = broken_at
        self.calls: list[int] = []

    def embed(self, waveform: Tensor, num_samples: Tensor, sample_rate_hz: int) -> Tensor:
        self.calls.append(len(waveform))
        angle = waveform[:, 0]
        if self.broken_at is not None and bool((angle == self.broken_at).any()):
            raise RuntimeError("no voice")
        return torch.stack([angle.cos(), angle.sin()], -1)


def sounding(value: float, num_samples: int) -> Tensor:
    """[num_samples] of faint noise at and below ``value``, which the first one is; a constant would be silence."""
    noise = torch.rand(num_samples, generator=keyed_generator("sounding"))
    noise[:1] = 0.0
    return value - 0.01 * noise


def said(
    text: str = "one two",
    value: float = 0.0,
    num_codes: int = 10,
    prompt: Tensor | None = None,
    finished: bool = True,
    codes: Sequence[int] | None = None,
    waveform: Tensor | None = None,
    **row: Any,
) -> Hypothesis:
    """A sample for ``text`` with a `sounding` waveform, 40 ms per code."""
    tokens = torch.tensor(
        list(range(num_codes)) if codes is None else list(codes), dtype=torch.int64
    )
    samples = sounding(value, 320 * len(tokens)) if waveform is None else waveform
    speech = Speech(
        samples,
        RATE_HZ,
        tokens,
        prompt=prompt,
        prompt_sample_rate_hz=0 if prompt is None else RATE_HZ,
    )
    fields = {"id": "row", "duration_s": 0.4} | row
    return Hypothesis(
        Utterance(segments=(), text=text, **fields), "", len(tokens) + finished, finished, speech
    )


def heard(number: int) -> float:
    """The sample value at which a `FakeJudge` hears transcript ``number``."""
    return number / 100


def tone(f0_hz: float, duration_s: float = 0.5, glide_semitones: float = 0.0) -> Tensor:
    """Five harmonics of a pitch that glides by ``glide_semitones`` around ``f0_hz``."""
    time_s = torch.arange(round(duration_s * RATE_HZ), dtype=torch.float64) / RATE_HZ
    hz = f0_hz * 2 ** (glide_semitones / 12 * (time_s / duration_s - 0.5))
    phase = 2 * math.pi * hz.cumsum(0) / RATE_HZ
    harmonics = [(k * phase).sin() / k for k in range(1, 6)]
    return (0.3 * torch.stack(harmonics).sum(0)).float()
