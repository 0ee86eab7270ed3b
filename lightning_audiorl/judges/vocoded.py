"""What a small codec makes of speech, roughly: mel bands and back. Judges of synthetic speech train on it too."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torchaudio.functional import griffinlim, melscale_fbanks


@lru_cache(maxsize=32)
def _bank(num_bins: int, num_mels: int, sample_rate_hz: int) -> tuple[Tensor, Tensor]:
    """[num_bins, num_mels] mel filters and their pseudo-inverse."""
    bank = melscale_fbanks(num_bins, 0.0, sample_rate_hz / 2, num_mels, sample_rate_hz, norm=None)
    return bank, torch.linalg.pinv(bank)


def vocoded(waveform: Tensor, sample_rate_hz: int, num_mels: int = 40, iterations: int = 8) -> Tensor:
    """[num_samples] through ``num_mels`` mel bands and back by Griffin-Lim: blurred in frequency, its phase invented.

    No draw is made: the phase starts at 0. The length stays; a clip shorter than one window stays as it is.
    """
    n_fft = 2 ** (round(0.064 * sample_rate_hz) - 1).bit_length()
    if waveform.shape[0] < n_fft:
        return waveform
    window = torch.hann_window(n_fft, device=waveform.device)
    bank, inverse = (part.to(waveform.device) for part in _bank(n_fft // 2 + 1, num_mels, sample_rate_hz))
    spectrum = torch.stft(waveform, n_fft, n_fft // 4, window=window, return_complex=True).abs()
    blurred = (inverse.T @ (bank.T @ spectrum)).clamp(min=0.0)
    again: Tensor = griffinlim(
        blurred, window, n_fft, n_fft // 4, n_fft, 1.0, iterations, 0.9, waveform.shape[0], rand_init=False
    )
    return again
