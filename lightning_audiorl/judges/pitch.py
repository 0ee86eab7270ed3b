"""Fundamental frequency: the YIN estimator (de Cheveigne and Kawahara 2002), which says where speech is voiced."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: A frame is voiced where its normalised difference falls below this (YIN's step 4).
_THRESHOLD = 0.15
#: Frames this much below the loudest one are silence, in dB.
_SILENCE_DB = 35.0


def voiced_f0_hz(
    waveform: Tensor,
    sample_rate_hz: int,
    low_hz: float = 60.0,
    high_hz: float = 400.0,
    hop_s: float = 0.01,
) -> Tensor:
    """F0 of the voiced frames of a clip.

    Args:
        waveform: [num_samples].
        sample_rate_hz: of the waveform.
        low_hz, high_hz: range searched.
        hop_s: distance between frames, in seconds.

    Returns:
        [num_voiced] float32 in Hz, in order of time; empty for silence, noise, or a clip shorter than one frame.

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
    if not bool(waveform.isfinite().all()):
        raise ValueError(
            "the waveform holds NaN or infinite samples; look for them in the codec's decoder"
        )

    # Periods searched, in samples; a frame holds a window at every lag, and one lag more for the parabola.
    longest = math.ceil(sample_rate_hz / low_hz)
    shortest = max(2, int(sample_rate_hz / high_hz))
    window = 2 * longest
    size = window + longest + 1
    if waveform.shape[0] < size or not bool(waveform.any()):
        return waveform.new_zeros(0, dtype=torch.float32)

    # Frames of silence have a period too, that of their rounding.
    frames = waveform.double().unfold(0, size, max(1, round(hop_s * sample_rate_hz)))
    level = frames.square().mean(-1)
    frames = frames[level > level.max() * 10 ** (-_SILENCE_DB / 10)]
    if not len(frames):  # what little there is lies after the last frame
        return waveform.new_zeros(0, dtype=torch.float32)

    # The first local minimum below the threshold: a later, deeper one is a multiple of the period.
    dips = _normalised_difference(frames, window, longest + 1)
    here = dips[:, shortest:longest]
    before = dips[:, shortest - 1 : longest - 1]
    after = dips[:, shortest + 1 : longest + 1]
    found = (here < _THRESHOLD) & (here <= before) & (here <= after)

    voiced = found.any(-1)
    lag = found[voiced].int().argmax(-1) + shortest
    return (sample_rate_hz / (lag + _offset(dips[voiced], lag))).float()


def _normalised_difference(frames: Tensor, window: int, num_lags: int) -> Tensor:
    """[N, num_lags + 1] YIN's cumulative mean normalised difference d'(lag), 1 at lag 0."""
    # sum((x[t] - x[t + lag])^2) = energy at 0 + energy at lag - 2 * correlation; the correlation by FFT.
    n_fft = 2 ** (frames.shape[-1] + window - 1).bit_length()
    head = torch.fft.rfft(frames[:, :window], n_fft)
    whole = torch.fft.rfft(frames, n_fft)
    products = torch.fft.irfft(whole * head.conj(), n_fft)[:, : num_lags + 1]

    power = frames.square().cumsum(-1)
    power = torch.nn.functional.pad(power, (1, 0))
    ends = power[:, window : window + num_lags + 1]
    starts = power[:, : num_lags + 1]
    energy = ends - starts
    difference = (energy[:, :1] + energy - 2 * products).clamp(min=0.0)

    lags = torch.arange(1, num_lags + 1, dtype=frames.dtype, device=frames.device)
    mean = difference[:, 1:].cumsum(-1) / lags
    normalised = difference[:, 1:] / mean.clamp(min=1e-12)
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
