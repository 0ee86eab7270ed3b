"""Audio without speech, computed from a short address: silence, noises, hum, music, clicks.

Address: ``synthetic:<kind>?seed=<int>&level_db=<float>``. The level is the RMS level in dB below full scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl

import torch
from torch import Tensor

from lightning_audiorl.data.manifest.schema import PREFIX
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.ops.randomness import key_to_seed, keyed_generator, keyed_uniform
from lightning_audiorl.types import Segment, Utterance


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _silence(num_samples: int, rate_hz: int, generator: torch.Generator) -> Tensor:
    return torch.zeros(num_samples)


def _coloured(exponent: float) -> Callable[[int, int, torch.Generator], Tensor]:
    """Noise whose power falls with frequency f as f**-exponent (0 white, 1 pink, 2 brown), from 20 Hz up."""

    def noise(num_samples: int, rate_hz: int, generator: torch.Generator) -> Tensor:
        if exponent == 0:
            return torch.randn(num_samples, generator=generator)
        power_of_two = 2 ** (num_samples - 1).bit_length()  # other lengths make the FFT ten times slower
        white = torch.randn(power_of_two, generator=generator)
        hz = torch.fft.rfftfreq(power_of_two, 1 / rate_hz).clamp(min=20.0)
        return torch.fft.irfft(torch.fft.rfft(white) * hz ** (-exponent / 2), n=power_of_two)[:num_samples]

    return noise


def _hum(num_samples: int, rate_hz: int, generator: torch.Generator) -> Tensor:
    """Mains hum: 50 or 60 Hz with eight harmonics of random strength."""
    base_hz = 50.0 if _uniform(generator, 0, 1) < 0.5 else 60.0
    time_s = torch.arange(num_samples) / rate_hz
    wave = torch.zeros(num_samples)
    for harmonic in range(1, 9):
        strength = _uniform(generator, 0.2, 1.0) / harmonic
        phase = _uniform(generator, 0, 2 * math.pi)
        wave += strength * torch.sin(2 * math.pi * base_hz * harmonic * time_s + phase)
    return wave


def _music(num_samples: int, rate_hz: int, generator: torch.Generator) -> Tensor:
    """Chords of three notes, 0.25 to 0.8 s each, with a short attack and an exponential decay."""
    wave = torch.zeros(num_samples)
    start = 0
    while start < num_samples:
        length = min(int(_uniform(generator, 0.25, 0.8) * rate_hz) + 1, num_samples - start)
        time_s = torch.arange(length) / rate_hz
        root_hz = 220.0 * 2 ** (int(_uniform(generator, -12, 12)) / 12)
        envelope = (time_s / 0.02).clamp(max=1.0) * torch.exp(-3.0 * time_s)
        third = 3 if _uniform(generator, 0, 1) < 0.5 else 4
        for semitones in (0, third, 7):
            note_hz = root_hz * 2 ** (semitones / 12)
            wave[start : start + length] += envelope * torch.sin(2 * math.pi * note_hz * time_s)
        start += length
    return wave


def _clicks(num_samples: int, rate_hz: int, generator: torch.Generator) -> Tensor:
    """About three short decaying noise bursts a second."""
    wave = torch.zeros(num_samples)
    click = torch.exp(-torch.arange(max(1, int(0.01 * rate_hz))) / (0.002 * rate_hz))
    for _ in range(1 + int(3 * num_samples / rate_hz)):
        start = int(_uniform(generator, 0, 1) * (num_samples - 1))
        length = min(len(click), num_samples - start)
        wave[start : start + length] += click[:length] * torch.randn(length, generator=generator)
    return wave


_KINDS: dict[str, Callable[[int, int, torch.Generator], Tensor]] = {
    "silence": _silence,
    "white": _coloured(0),
    "pink": _coloured(1),
    "brown": _coloured(2),
    "hum": _hum,
    "music": _music,
    "clicks": _clicks,
}
KINDS: tuple[str, ...] = tuple(_KINDS)


def _check_kind(kind: str, where: str) -> str:
    if kind not in _KINDS:
        raise ValueError(f"{where}: unknown kind {kind!r}; use one of {', '.join(KINDS)}")
    return kind


def render(uri: str, duration_s: float, sample_rate_hz: int) -> Tensor:
    """The audio of an address, the same every time: [num_samples] float32 in [-1, 1].

    Raises:
        ValueError: for an address that is not ``synthetic:<kind>?seed=..&level_db=..`` or a duration of 0 or less.
    """
    kind, _, query = uri.removeprefix(PREFIX).partition("?")
    if not uri.startswith(PREFIX):
        raise ValueError(f"{uri!r}: expected an address that begins with {PREFIX!r}")
    _check_kind(kind, repr(uri))
    options = dict(parse_qsl(query))
    if unknown := options.keys() - {"seed", "level_db"}:
        raise ValueError(f"{uri!r}: unknown option {sorted(unknown)[0]!r}; seed and level_db exist")
    try:
        seed, level_db = int(options.get("seed", "0")), float(options.get("level_db", "-30"))
    except ValueError as error:
        raise ValueError(f"{uri!r}: expected seed=<int>&level_db=<float> ({error})") from error
    num_samples = round(duration_s * sample_rate_hz)
    if num_samples < 1:
        raise ValueError(f"{uri!r}: expected a duration of at least one sample, got {duration_s} s")
    wave = _KINDS[kind](num_samples, sample_rate_hz, keyed_generator("render", kind, seed))
    rms = wave.square().mean().sqrt().clamp(min=1e-8)
    return (wave * (10 ** (level_db / 20) / rms)).clamp(-1.0, 1.0)


class NonSpeech(RowSource):
    """Rows with no speech and an empty reference text: what a recogniser must answer with nothing.

    Args:
        num_rows: number of rows; kinds take turns.
        kinds: some of silence, white, pink, brown, hum, music, clicks.
        min_s: shortest row, in seconds.
        max_s: longest row, in seconds.
        seed: another seed gives other rows (use different ones for training and validation).
        level_db: range of RMS levels in dB of full scale.
        lang: language named in the rows.
    """

    def __init__(
        self,
        num_rows: int = 200,
        kinds: Sequence[str] = KINDS,
        min_s: float = 1.0,
        max_s: float = 8.0,
        seed: int = 0,
        level_db: tuple[float, float] = (-50.0, -15.0),
        lang: str = "en",
    ) -> None:
        if num_rows < 1 or not kinds or not 0 < min_s <= max_s or level_db[0] > level_db[1]:
            raise ValueError(
                "NonSpeech: want num_rows >= 1, at least one kind, 0 < min_s <= max_s, level_db (low, high); got "
                f"num_rows={num_rows}, kinds={list(kinds)}, min_s={min_s}, max_s={max_s}, level_db={level_db}"
            )
        self.kinds = tuple(_check_kind(kind, "NonSpeech.kinds") for kind in kinds)
        self.num_rows, self.min_s, self.max_s, self.seed, self.level_db = num_rows, min_s, max_s, seed, level_db
        self.lang = lang

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        check_index(index, self.num_rows, self)
        kind = self.kinds[index % len(self.kinds)]
        length, level = keyed_uniform(2, "nonspeech", self.seed, index).tolist()
        duration_s = round(self.min_s + (self.max_s - self.min_s) * length, 3)
        level_db = self.level_db[0] + (self.level_db[1] - self.level_db[0]) * level
        uri = f"{PREFIX}{kind}?seed={key_to_seed('nonspeech', self.seed, index) >> 31}&level_db={level_db:.1f}"
        return Utterance(
            id=f"nonspeech-{kind}-s{self.seed}-{index:06d}",
            segments=(Segment(uri, duration_s),),
            text="",
            duration_s=duration_s,
            lang=self.lang,
            extra={"kind": kind},
        )
