"""Fundamental frequency: the YIN estimator (de Cheveigne and Kawahara 2002), which says where speech is voiced."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_audiorl.judges.silence import SILENCE_DBFS, sound_dbfs

#: A frame is voiced where its normalised difference falls below this (YIN's step 4).
_THRESHOLD = 0.15
#: Frames this much below the loudest one are silence, in dB.
_SILENCE_DB = 35.0
#: Where samples differ by less than this share of the frame's power, they are constant but for rounding.
_CONSTANT = 1e-9
#: A clip with a smaller share of voiced frames has no pitch: a few frames sound periodic by chance, or by an artefact.
MIN_VOICED_SHARE = 0.05


@dataclass(frozen=True)
class Pitch:
    """F0 of the voiced frames of a clip, and how many frames it had altogether.

    Args:
        f0_hz: [num_voiced] float32, in order of time.
        num_frames: of the clip, silent ones included; 0 where it is shorter than a frame.

    Example:
        >>> Pitch(torch.tensor([100.0, 200.0]), num_frames=8).voiced_share
        0.25
    """

    f0_hz: Tensor
    num_frames: int

    @property
    def voiced_share(self) -> float:
        """Share of the frames that are voiced."""
        return len(self.f0_hz) / self.num_frames if self.num_frames else 0.0

    @property
    def is_known(self) -> bool:
        """Whether enough frames are voiced for F0 to say anything; see `MIN_VOICED_SHARE`."""
        return len(self.f0_hz) > 0 and self.voiced_share >= MIN_VOICED_SHARE

    @property
    def spread_semitones(self) -> float:
        """`f0_spread_semitones`, 0 where the pitch is not known."""
        return f0_spread_semitones(self.f0_hz) if self.is_known else 0.0


def voiced_f0_hz(
    waveform: Tensor,
    sample_rate_hz: int,
    low_hz: float = 60.0,
    high_hz: float = 400.0,
    hop_s: float = 0.01,
) -> Tensor:
    """F0 of the voiced frames of a clip; see `pitch_of`, which also says how many frames there were.

    Args:
        waveform: [num_samples].
        sample_rate_hz: of the waveform.
        low_hz, high_hz: range searched.
        hop_s: distance between frames, in seconds.

    Returns:
        [num_voiced] float32 in Hz, in order of time; empty for silence, a constant, noise, or a clip shorter than one
        frame.

    Raises:
        ValueError: for samples that are NaN or infinite.

    Example:
        >>> time_s = torch.arange(4000) / 8000
        >>> f0_hz = voiced_f0_hz((2 * math.pi * 200 * time_s).sin(), 8000)
        >>> round(float(f0_hz.mean()))
        200
        >>> voiced_f0_hz(torch.zeros(4000), 8000)
        tensor([])
    """
    return pitch_of(waveform, sample_rate_hz, low_hz, high_hz, hop_s).f0_hz


def pitch_of(
    waveform: Tensor,
    sample_rate_hz: int,
    low_hz: float = 60.0,
    high_hz: float = 400.0,
    hop_s: float = 0.01,
) -> Pitch:
    """F0 of the voiced frames of a clip beside the number of all its frames.

    Args:
        waveform: [num_samples].
        sample_rate_hz: of the waveform.
        low_hz, high_hz: range searched.
        hop_s: distance between frames, in seconds.

    Raises:
        ValueError: for samples that are NaN or infinite.

    Example:
        >>> time_s = torch.arange(8000) / 8000
        >>> tone = (2 * math.pi * 200 * time_s[:4000]).sin()
        >>> pitch = pitch_of(torch.cat([tone, torch.zeros(4000)]), 8000)
        >>> round(pitch.voiced_share, 1), pitch.is_known
        (0.5, True)
    """
    if not bool(waveform.isfinite().all()):
        raise ValueError(
            "the waveform holds NaN or infinite samples; look for them in the codec's decoder"
        )

    # Periods searched, in samples; a frame holds a window at every lag, and one lag more for the parabola.
    longest = math.ceil(sample_rate_hz / low_hz)
    shortest = max(2, int(sample_rate_hz / high_hz))
    window = 2 * longest
    size = window + longest + 1
    none = waveform.new_zeros(0, dtype=torch.float32)
    if waveform.shape[0] < size:
        return Pitch(none, 0)

    frames = waveform.double().unfold(0, size, max(1, round(hop_s * sample_rate_hz)))
    num_frames = len(frames)
    if sound_dbfs(waveform, sample_rate_hz) < SILENCE_DBFS:
        return Pitch(none, num_frames)

    # Frames of silence have a period too, that of their rounding. A constant is silence at any height.
    level = frames.var(-1, correction=0)
    frames = frames[level > level.max() * 10 ** (-_SILENCE_DB / 10)]
    if not len(frames):  # what little there is lies after the last frame
        return Pitch(none, num_frames)

    # The first local minimum below the threshold: a later, deeper one is a multiple of the period.
    dips = _normalised_difference(frames, window, longest + 1)
    here = dips[:, shortest : longest + 1]
    before = dips[:, shortest - 1 : longest]
    after = dips[:, shortest + 1 : longest + 2]
    found = (here < _THRESHOLD) & (here <= before) & (here <= after)

    voiced = found.any(-1)
    lag = found[voiced].int().argmax(-1) + shortest
    f0_hz = sample_rate_hz / (lag + _offset(dips[voiced], lag))
    return Pitch(f0_hz.float(), num_frames)


def _normalised_difference(frames: Tensor, window: int, num_lags: int) -> Tensor:
    """[N, num_lags + 1] YIN's cumulative mean normalised difference d'(lag), 1 at lag 0."""
    # sum((x[t] - x[t + lag])^2) = energy at 0 + energy at lag - 2 * correlation; the correlation by FFT.
    n_fft = 2 ** (frames.shape[-1] + window - 1).bit_length()
    head = torch.fft.rfft(frames[:, :window], n_fft)
    whole = torch.fft.rfft(frames, n_fft)
    products = torch.fft.irfft(whole * head.conj(), n_fft)
    products = products[:, : num_lags + 1]

    power = frames.square().cumsum(-1)
    power = torch.nn.functional.pad(power, (1, 0))
    ends = power[:, window : window + num_lags + 1]
    starts = power[:, : num_lags + 1]
    energy = ends - starts

    # A small difference of large sums: rounding may take it below 0.
    difference = (energy[:, :1] + energy - 2 * products).clamp(min=0.0)

    lags = torch.arange(1, num_lags + 1, dtype=frames.dtype, device=frames.device)
    mean = difference[:, 1:].cumsum(-1) / lags

    # Samples that do not differ at all repeat at every lag, which is no period.
    is_constant = mean <= _CONSTANT * power[:, -1:]
    normalised = torch.where(is_constant, 1.0, difference[:, 1:] / mean.clamp(min=1e-12))
    at_zero = torch.ones_like(difference[:, :1])
    return torch.cat([at_zero, normalised], -1)


def _offset(dips: Tensor, lag: Tensor) -> Tensor:
    """[N] where between the lags the parabola through each minimum and its neighbours is lowest, in (-1, 1)."""
    before = dips.gather(1, lag[:, None] - 1).squeeze(1)
    at = dips.gather(1, lag[:, None]).squeeze(1)
    after = dips.gather(1, lag[:, None] + 1).squeeze(1)

    # Where the three lie on a line, the lag itself is as good as any other place.
    curve = before - 2 * at + after
    offset = 0.5 * (before - after) / curve.clamp(min=1e-12)
    return torch.where(curve > 1e-12, offset, 0.0).clamp(-1.0, 1.0)


def f0_spread_semitones(f0_hz: Tensor) -> float:
    """Standard deviation (population) of [num_voiced] F0 in semitones; 0 for fewer than two frames.

    Example:
        >>> f0_spread_semitones(torch.tensor([100.0, 200.0]))
        6.0
    """
    if f0_hz.shape[0] < 2:
        return 0.0
    return float((12 * f0_hz.double().log2()).std(correction=0))
