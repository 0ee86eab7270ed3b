"""Audio without speech, computed from a short address: silence, noises, hum, music, clicks.

Address: ``synthetic:<kind>?seed=<int>&level_db=<float>``. The level is the RMS level in dB below full scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl

import torch
from torch import Tensor

from lightning_audiorl.checks import check_number
from lightning_audiorl.data.draws import between
from lightning_audiorl.data.manifest.schema import PREFIX
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.languages import check_language
from lightning_audiorl.ops.randomness import key_to_seed, keyed_generator, keyed_uniform
from lightning_audiorl.types import Segment, Utterance

#: Makes [num_samples] at a sampling rate in Hz, at any level.
Sound = Callable[[int, int, torch.Generator], Tensor]


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    share = float(torch.rand((), generator=generator))
    return between((low, high), share)


def _silence(num_samples: int, rate_hz: int, generator: torch.Generator) -> Tensor:
    return torch.zeros(num_samples)


def _coloured(exponent: float) -> Sound:
    """Noise whose power falls with frequency f as f**-exponent (0 white, 1 pink, 2 brown), from 20 Hz up."""

    def noise(num_samples: int, rate_hz: int, generator: torch.Generator) -> Tensor:
        if exponent == 0:
            return torch.randn(num_samples, generator=generator)

        # Other lengths than powers of two make the FFT ten times slower.
        fast_length = 2 ** (num_samples - 1).bit_length()
        white = torch.randn(fast_length, generator=generator)

        # Below 20 Hz the spectrum is flat: brown noise would otherwise be all rumble, and infinite at 0 Hz.
        hz = torch.fft.rfftfreq(fast_length, 1 / rate_hz).clamp(min=20.0)
        spectrum = torch.fft.rfft(white) * hz ** (-exponent / 2)
        return torch.fft.irfft(spectrum, n=fast_length)[:num_samples]

    return noise


def _hum(num_samples: int, rate_hz: int, generator: torch.Generator) -> Tensor:
    """Mains hum: 50 or 60 Hz with eight harmonics of random strength."""
    base_hz = 50.0 if _uniform(generator, 0, 1) < 0.5 else 60.0
    time_s = torch.arange(num_samples) / rate_hz
    wave = torch.zeros(num_samples)
    for harmonic in range(1, 9):
        strength = _uniform(generator, 0.2, 1.0) / harmonic
        phase = _uniform(generator, 0, 2 * math.pi)
        tone = torch.sin(2 * math.pi * base_hz * harmonic * time_s + phase)
        wave += strength * tone
    return wave


def _music(num_samples: int, rate_hz: int, generator: torch.Generator) -> Tensor:
    """Chords of three notes, 0.25 to 0.8 s each, with a short attack and an exponential decay."""
    wave = torch.zeros(num_samples)
    start = 0
    while start < num_samples:
        wanted = int(_uniform(generator, 0.25, 0.8) * rate_hz) + 1
        length = min(wanted, num_samples - start)
        time_s = torch.arange(length) / rate_hz

        # Up to an octave below or above the A of 220 Hz.
        shift = int(_uniform(generator, -12, 12))
        root_hz = 220.0 * 2 ** (shift / 12)

        # A minor or a major third, and the fifth.
        third = 3 if _uniform(generator, 0, 1) < 0.5 else 4
        attack = (time_s / 0.02).clamp(max=1.0)
        envelope = attack * torch.exp(-3.0 * time_s)
        for semitones in (0, third, 7):
            note_hz = root_hz * 2 ** (semitones / 12)
            note = torch.sin(2 * math.pi * note_hz * time_s)
            wave[start : start + length] += envelope * note

        start += length
    return wave


def _clicks(num_samples: int, rate_hz: int, generator: torch.Generator) -> Tensor:
    """About three short decaying noise bursts a second."""
    wave = torch.zeros(num_samples)
    num_click = max(1, int(0.01 * rate_hz))
    envelope = torch.exp(-torch.arange(num_click) / (0.002 * rate_hz))

    num_clicks = 1 + int(3 * num_samples / rate_hz)
    for _ in range(num_clicks):
        start = int(_uniform(generator, 0, 1) * (num_samples - 1))
        length = min(num_click, num_samples - start)
        burst = torch.randn(length, generator=generator)
        wave[start : start + length] += envelope[:length] * burst
    return wave


_KINDS: dict[str, Sound] = {
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


def rms(wave: Tensor) -> Tensor:
    """Root of the mean power of [num_samples], a scalar.

    Example:
        >>> rms(torch.tensor([0.5, -0.5]))
        tensor(0.5000)
    """
    return wave.square().mean().sqrt()


def render(uri: str, duration_s: float, sample_rate_hz: int) -> Tensor:
    """The audio of an address, the same every time: [num_samples] float32 in [-1, 1].

    Raises:
        ValueError: for an address that is not ``synthetic:<kind>?seed=..&level_db=..`` or a duration of 0 or less.

    Example:
        >>> pink = render("synthetic:pink?seed=3&level_db=-20", duration_s=1.0, sample_rate_hz=8000)
        >>> pink.shape, round(float(pink.square().mean().sqrt()), 3)
        (torch.Size([8000]), 0.1)
    """
    kind, seed, level_db = _parse(uri)
    num_samples = round(duration_s * sample_rate_hz)
    if num_samples < 1:
        raise ValueError(f"{uri!r}: expected a duration of at least one sample, got {duration_s} s")

    generator = keyed_generator("render", kind, seed)
    wave = _KINDS[kind](num_samples, sample_rate_hz, generator)

    # Silence has no level to scale: the smallest divisor keeps its zeros.
    gain = 10 ** (level_db / 20) / rms(wave).clamp(min=1e-8)
    return (wave * gain).clamp(-1.0, 1.0)


def _parse(uri: str) -> tuple[str, int, float]:
    """Kind, seed and level in dB of an address; ValueError says what it lacks."""
    if not uri.startswith(PREFIX):
        raise ValueError(f"{uri!r}: expected an address that begins with {PREFIX!r}")
    kind, _, query = uri.removeprefix(PREFIX).partition("?")
    _check_kind(kind, repr(uri))

    options = dict(parse_qsl(query))
    if unknown := options.keys() - {"seed", "level_db"}:
        first = sorted(unknown)[0]
        raise ValueError(f"{uri!r}: unknown option {first!r}; seed and level_db exist")

    try:
        seed = int(options.get("seed", "0"))
        level_db = float(options.get("level_db", "-30"))
    except ValueError as error:
        raise ValueError(f"{uri!r}: expected seed=<int>&level_db=<float> ({error})") from error
    return kind, seed, level_db


class NonSpeech(RowSource):
    """Rows without speech and with an empty reference text: any word in their hypothesis is a hallucination.

    Args:
        num_rows: number of rows; kinds take turns.
        kinds: some of silence, white, pink, brown, hum, music, clicks.
        min_s: shortest row, in seconds.
        max_s: longest row, in seconds.
        seed: another seed gives other rows (use different ones for training and validation).
        level_db: range of RMS levels in dB of full scale.
        lang: language named in the rows.

    Raises:
        ValueError: no row, no kind or an unknown one, or an empty range.

    Example:
        >>> rows = NonSpeech(num_rows=2, kinds=["hum", "clicks"])
        >>> [(row.id, row.text) for row in rows]
        [('nonspeech-hum-s0-000000', ''), ('nonspeech-clicks-s0-000001', '')]
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
        check_number("NonSpeech.min_s", min_s)
        check_number("NonSpeech.max_s", max_s)
        for level in level_db:
            check_number("NonSpeech.level_db", level)

        has_rows = num_rows >= 1 and bool(kinds)
        has_lengths = 0 < min_s <= max_s
        has_levels = level_db[0] <= level_db[1]
        if not has_rows or not has_lengths or not has_levels:
            raise ValueError(
                "NonSpeech: want num_rows >= 1, at least one kind, 0 < min_s <= max_s, level_db (low, high); got "
                f"num_rows={num_rows}, kinds={list(kinds)}, min_s={min_s}, max_s={max_s}, level_db={level_db}"
            )

        self.kinds = tuple(_check_kind(kind, "NonSpeech.kinds") for kind in kinds)
        self.num_rows = num_rows
        self.min_s = min_s
        self.max_s = max_s
        self.seed = seed
        self.level_db = level_db
        check_language(lang)
        self.lang = lang

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        check_index(index, self.num_rows, self)
        kind = self.kinds[index % len(self.kinds)]
        u_duration, u_level = keyed_uniform(2, "nonspeech", self.seed, index).tolist()
        limits_s = (self.min_s, self.max_s)
        duration_s = round(between(limits_s, u_duration), 3)
        level_db = between(self.level_db, u_level)

        # The upper half of the bits is seed enough, and the address stays short.
        sound_seed = key_to_seed("nonspeech", self.seed, index) >> 31
        uri = f"{PREFIX}{kind}?seed={sound_seed}&level_db={level_db:.1f}"
        return Utterance(
            id=f"nonspeech-{kind}-s{self.seed}-{index:06d}",
            segments=(Segment(uri, duration_s),),
            text="",
            duration_s=duration_s,
            lang=self.lang,
            extra={"kind": kind},
        )
