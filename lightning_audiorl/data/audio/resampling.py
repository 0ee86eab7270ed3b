"""From any sampling rate to any other, at a bounded cost."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchaudio import functional

#: Most weights of torchaudio's filter, which has a row for each sample of the shortest period that both rates share:
#: 290,000 from 11,025 to 16,000 Hz, but 89 million (1.4 GB in the making, 3 s of CPU) from 22,254 to 16,000.
_MAX_WEIGHTS = 2**22


def resample(wave: Tensor, rate_hz: int, wanted_hz: int) -> Tensor:
    """[num_samples] float32 at another rate: ceil(num_samples * wanted_hz / rate_hz) samples, without delay.

    By torchaudio for rates that share a divisor, as usual ones do; by soxr for others, whose filter would not fit.

    Example:
        >>> resample(torch.zeros(44100), 44100, 16000).shape, resample(torch.zeros(22254), 22254, 16000).shape
        (torch.Size([16000]), torch.Size([16000]))
    """
    if rate_hz == wanted_hz:
        return wave
    if _num_weights(rate_hz, wanted_hz) <= _MAX_WEIGHTS:
        return functional.resample(wave, rate_hz, wanted_hz)

    # Loaded for the few who need it.
    import soxr

    samples = soxr.resample(wave.numpy(), rate_hz, wanted_hz, quality="HQ")
    num_samples = math.ceil(len(wave) * wanted_hz / rate_hz)
    # The library may round the length otherwise.
    resampled = torch.from_numpy(samples)[:num_samples]
    return pad(resampled, (0, num_samples - len(resampled)))


def _num_weights(rate_hz: int, wanted_hz: int) -> int:
    """Size of torchaudio's filter for these rates, with its default width of 6 zero crossings on each side."""
    divisor = math.gcd(rate_hz, wanted_hz)
    old = rate_hz // divisor
    new = wanted_hz // divisor
    width = math.ceil(6 * old / (0.99 * min(old, new)))
    return new * (old + 2 * width)
