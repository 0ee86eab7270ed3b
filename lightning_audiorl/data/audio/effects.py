"""What a room, a telephone line or a noisy street does to speech: short addresses, the same sound every time.

Address: ``<effect>?<option>=<value>&<option>=<value>``; options left out take their default.

==============================  =======================================================================================
``noise?kind=white&snr_db=10``  a noise of `nonspeech`, ``snr_db`` below the clip's mean power (pauses count)
``noise_from?folder=/musan``    a stretch of a recording drawn from a folder, ``snr_db`` below the clip's mean power
``reverb?rt60_s=0.5&drr_db=0``  a room: sound falls by 60 dB in ``rt60_s``; ``drr_db`` is the energy of the direct sound
                                over that of the reverberation
``room_from?folder=/rirs``      a room's impulse response drawn from a folder
``telephone``                   300 to 3400 Hz, 8 kHz sampling, 8-bit mu-law, and back to the clip's rate
``gain?db=-20``                 louder or softer
==============================  =======================================================================================

Every effect keeps the clip's length. Nothing is clipped but by the telephone, whose code ends at full scale.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchaudio.functional import mu_law_decoding, mu_law_encoding

from lightning_audiorl.data.audio.nonspeech import KINDS, render
from lightning_audiorl.data.audio.own_sounds import (
    at_snr,
    convolved,
    noise_from,
    room_from,
    sounds_of,
)
from lightning_audiorl.data.audio.resampling import resample
from lightning_audiorl.data.manifest.schema import PREFIX
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.ops.randomness import key_to_seed, keyed_generator
from lightning_audiorl.types import Utterance

Key = tuple[int | str, ...]

#: The telephone's band: full from 300 to 3400 Hz, nothing below 200 and above 3600 Hz.
BAND_HZ = (200.0, 300.0, 3400.0, 3600.0)
TELEPHONE_RATE_HZ = 8000
#: The first reflection comes this long after the direct sound: about 1 m of detour.
FIRST_REFLECTION_S = 0.003
#: What a data module puts behind the id of a training row: ``@<subset>.<epoch>``.
_TRAINING_SUFFIX = re.compile(r"@[^@]*\.\d+$")


class Options(dict[str, float | str]):
    """Options of one effect by name, checked and complete."""

    def number(self, name: str) -> float:
        """An option that is a number."""
        return float(self[name])


def _noise(wave: Tensor, rate_hz: int, key: Key, options: Options) -> Tensor:
    seed = key_to_seed("noise", *key)
    # Rendered well below full scale, where nothing is clipped, and scaled afterwards.
    uri = f"{PREFIX}{options['kind']}?seed={seed}&level_db=-40"
    noise = render(uri, len(wave) / rate_hz, rate_hz)
    return at_snr(wave, noise, options.number("snr_db"))


def _noise_from(wave: Tensor, rate_hz: int, key: Key, options: Options) -> Tensor:
    noise = noise_from(str(options["folder"]), len(wave), rate_hz, key)
    return at_snr(wave, noise, options.number("snr_db"))


def _room_from(wave: Tensor, rate_hz: int, key: Key, options: Options) -> Tensor:
    return convolved(wave, room_from(str(options["folder"]), rate_hz, key))


def room_response(rt60_s: float, drr_db: float, rate_hz: int, generator: torch.Generator) -> Tensor:
    """A synthetic room: the direct sound, then white noise that decays by 60 dB in ``rt60_s``.

    Args:
        rt60_s: seconds in which the reverberation falls by 60 dB.
        drr_db: energy of the direct sound over that of the reverberation, in dB.
        rate_hz: sampling rate.
        generator: draws the reverberation.

    Returns:
        [rt60_s * rate_hz] float32 with the direct sound first and energy (sum of squares) 1.

    Example:
        >>> response = room_response(0.5, 0.0, 8000, torch.Generator().manual_seed(0))
        >>> response.shape, round(float(response[0].square()), 2), round(float(response.square().sum()), 2)
        (torch.Size([4001]), 0.5, 1.0)
    """
    time_s = torch.arange(1 + round(rt60_s * rate_hz)) / rate_hz
    # An amplitude of 10**-3 is a power of -60 dB.
    decay = 10 ** (-3.0 * time_s / rt60_s)
    tail = torch.randn(time_s.shape, generator=generator) * decay
    tail[time_s < FIRST_REFLECTION_S] = 0.0

    level = 10 ** (-drr_db / 20)
    response = tail * (level / tail.norm())
    response[0] = 1.0
    return response / response.norm()


def _reverb(wave: Tensor, rate_hz: int, key: Key, options: Options) -> Tensor:
    generator = keyed_generator("reverb", *key)
    response = room_response(
        rt60_s=options.number("rt60_s"),
        drr_db=options.number("drr_db"),
        rate_hz=rate_hz,
        generator=generator,
    )
    return convolved(wave, response)


def _telephone(wave: Tensor, rate_hz: int, key: Key, options: Options) -> Tensor:
    narrow = resample(_to_band(wave, rate_hz), rate_hz, TELEPHONE_RATE_HZ)
    codes = mu_law_encoding(narrow.clamp(-1.0, 1.0), 256)
    coded = mu_law_decoding(codes, 256)
    wide = resample(coded, TELEPHONE_RATE_HZ, rate_hz)

    # There and back the two resamplers may lose or add a few samples, and the code's noise lies outside the band, too.
    num_missing = max(0, len(wave) - len(wide))
    wide = pad(wide, (0, num_missing))[: len(wave)]
    return _to_band(wide, rate_hz)


def _to_band(wave: Tensor, rate_hz: int) -> Tensor:
    """The part of [num_samples] within `BAND_HZ`, without delay; a straight slope at each edge."""
    fast_length = 2 ** len(wave).bit_length()
    hz = torch.fft.rfftfreq(fast_length, 1 / rate_hz)

    low, full_from, full_to, high = BAND_HZ
    rise = (hz - low) / (full_from - low)
    fall = (high - hz) / (high - full_to)
    gain = torch.minimum(rise, fall).clamp(0.0, 1.0)

    spectrum = torch.fft.rfft(wave, n=fast_length) * gain
    return torch.fft.irfft(spectrum, n=fast_length)[: len(wave)]


def _gain(wave: Tensor, rate_hz: int, key: Key, options: Options) -> Tensor:
    return wave * 10 ** (options.number("db") / 20)


@dataclass(frozen=True)
class _Option:
    """Default and what is allowed: names, or (lowest, highest); no names for a folder, which has no default."""

    default: float | str
    allowed: tuple[str, ...] | tuple[float, float]

    def read(self, text: str) -> float | str:
        """The value of ``text``; ValueError says what is allowed."""
        if not self.allowed:
            sounds_of(text)
            return text
        if isinstance(self.default, str):
            if text not in self.allowed:
                names = ", ".join(map(str, self.allowed))
                raise ValueError(f"use one of {names}")
            return text

        low, high = map(float, self.allowed)
        try:
            value = float(text)
        except ValueError:
            # NaN fails the comparison below, whose message says what is allowed.
            value = math.nan
        if not low <= value <= high:
            raise ValueError(f"use a number from {low:g} to {high:g}")
        return value


@dataclass(frozen=True)
class _Kind:
    """One effect: what it does to [num_samples], and its options."""

    apply: Callable[[Tensor, int, Key, Options], Tensor]
    options: Mapping[str, _Option]


_NOISES = tuple(kind for kind in KINDS if kind != "silence")

_FOLDER = _Option("", ())
_KINDS: dict[str, _Kind] = {
    "noise": _Kind(
        _noise,
        {
            "kind": _Option("white", _NOISES),
            "snr_db": _Option(10.0, (-60.0, 120.0)),
        },
    ),
    "reverb": _Kind(
        _reverb,
        {
            "rt60_s": _Option(0.5, (0.05, 10.0)),
            "drr_db": _Option(0.0, (-40.0, 40.0)),
        },
    ),
    "telephone": _Kind(_telephone, {}),
    "gain": _Kind(
        _gain,
        {"db": _Option(-20.0, (-120.0, 60.0))},
    ),
    "noise_from": _Kind(
        _noise_from,
        {
            "folder": _FOLDER,
            "snr_db": _Option(10.0, (-60.0, 120.0)),
        },
    ),
    "room_from": _Kind(_room_from, {"folder": _FOLDER}),
}
EFFECTS: tuple[str, ...] = tuple(_KINDS)


def parse_effect(address: str) -> tuple[str, Options]:
    """Name and options of an address, defaults filled in.

    Raises:
        ValueError: unknown effect or option, or a value that is not allowed; says which exist.

    Example:
        >>> parse_effect("noise?snr_db=5")
        ('noise', {'kind': 'white', 'snr_db': 5.0})
        >>> parse_effect("gain?db=loud")
        Traceback (most recent call last):
        ...
        ValueError: effect 'gain?db=loud': db='loud' is not allowed; use a number from -120 to 60
    """
    name, _, query = address.partition("?")
    if name not in _KINDS:
        raise ValueError(
            f"effect {address!r}: there is no effect {name!r}; use one of {', '.join(EFFECTS)}"
        )

    known = _KINDS[name].options
    options = Options({option: known[option].default for option in known})
    for option, text in parse_qsl(query, keep_blank_values=True):
        if option not in known:
            exist = f"{', '.join(known)} exist" if known else "it has none"
            raise ValueError(f"effect {address!r}: {name} has no option {option!r}; {exist}")
        try:
            options[option] = known[option].read(text)
        except ValueError as error:
            raise ValueError(
                f"effect {address!r}: {option}={text!r} is not allowed; {error}"
            ) from error

    if options.get("folder") == "":
        raise ValueError(
            f"effect {address!r}: names no folder; write {name}?folder=<folder of recordings>"
        )
    return name, options


def apply_effects(wave: Tensor, effects: Sequence[str], row_id: str, sample_rate_hz: int) -> Tensor:
    """[num_samples] float32 after ``effects``, one after the other; a new tensor of the same length.

    Draws are keyed by the row's id and the place in the list. What a data module puts behind the id of a training row
    (``@<subset>.<epoch>``) does not count, so a row sounds the same in every epoch.

    Raises:
        ValueError: an unknown effect or option, or a value that is not allowed.

    Example:
        >>> apply_effects(torch.ones(3), ["gain?db=-20"], row_id="a", sample_rate_hz=16000)
        tensor([0.1000, 0.1000, 0.1000])
    """
    row_key = _TRAINING_SUFFIX.sub("", row_id)
    for number, address in enumerate(effects):
        name, options = parse_effect(address)
        if len(wave) > 0:
            key = (row_key, number)
            wave = _KINDS[name].apply(wave, sample_rate_hz, key, options)
    return wave


def source_ids(*rows: Utterance) -> list[str]:
    """Ids of ``rows`` and of what those were made of: the field ``sources`` of a row that is made of them.

    Example:
        >>> row = Utterance(id="a+gain", segments=(), text="", duration_s=1.0, extra={"sources": ["a"]})
        >>> source_ids(row)
        ['a+gain', 'a']
    """
    names: list[str] = []
    for row in rows:
        names += [row.id, *row.extra.get("sources", ())]
    return list(dict.fromkeys(names))


def refuse_effects(row: Utterance, maker: object) -> Utterance:
    """The row itself, if it has no effects: they would then act on all that ``maker`` makes of it.

    A noise set against the row's own level would be set against that of a longer clip, keyed by another id: the row
    would no longer sound as it did.

    Raises:
        ValueError: the row has effects; names it and the class of ``maker``.
    """
    if row.effects:
        name = type(maker).__name__
        raise ValueError(
            f"{name}: row {row.id!r} has effects {list(row.effects)}, which act on a whole clip; give "
            "the source without effects and wrap what is made of it in Degraded"
        )
    return row


class Degraded(RowSource):
    """The rows of another source after effects: an evaluation set away from the training data.

    Row ``x`` becomes ``x+telephone``, with ``extra["sources"] == ["x"]``; effects that it had already come first.

    Args:
        source: the rows.
        effects: addresses such as ``["reverb?rt60_s=0.6", "noise?kind=pink&snr_db=5"]``, applied in order.

    Raises:
        ValueError: no effect, or one that does not exist.

    Example:
        >>> from lightning_audiorl.data import NonSpeech
        >>> row = Degraded(NonSpeech(kinds=["hum"]), ["telephone", "gain?db=-6"])[0]
        >>> row.id, row.effects
        ('nonspeech-hum-s0-000000+telephone+gain?db=-6', ('telephone', 'gain?db=-6'))
    """

    def __init__(self, source: RowSource, effects: list[str]) -> None:
        if not effects:
            raise ValueError(
                f"Degraded.effects: want at least one of {', '.join(EFFECTS)}, got none"
            )
        for number, address in enumerate(effects):
            try:
                parse_effect(address)
            except ValueError as error:
                raise ValueError(f"Degraded.effects[{number}]: {error}") from error

        self.source = source
        self.effects = tuple(effects)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        row = self.source[check_index(index, len(self), self)]
        return replace(
            row,
            id="+".join((row.id, *self.effects)),
            effects=(*row.effects, *self.effects),
            extra={**row.extra, "sources": source_ids(row)},
        )
