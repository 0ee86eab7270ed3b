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


def vocoded(
    waveform: Tensor,
    sample_rate_hz: int,
    num_mels: int = 40,
    iterations: int = 8,
) -> Tensor:
    """[num_samples] through ``num_mels`` mel bands and back by Griffin-Lim: blurred in frequency, its phase invented.

    No draw is made: the phase starts at 0. The length stays; a clip shorter than one window stays as it is.

    Example:
        >>> vocoded(torch.ones(4000), 8000, num_mels=20, iterations=1).shape
        torch.Size([4000])
    """
    n_fft = 2 ** (round(0.064 * sample_rate_hz) - 1).bit_length()
    if waveform.shape[0] < n_fft:
        return waveform

    window = torch.hann_window(n_fft, device=waveform.device)
    num_bins = n_fft // 2 + 1
    bank, inverse = _bank(num_bins, num_mels, sample_rate_hz)
    bank = bank.to(waveform.device)
    inverse = inverse.to(waveform.device)

    spectrum = torch.stft(waveform, n_fft, n_fft // 4, window=window, return_complex=True)
    mel = bank.T @ spectrum.abs()

    # The pseudo-inverse of the filters may go below 0 where the bands did not.
    blurred = (inverse.T @ mel).clamp(min=0.0)
    again: Tensor = griffinlim(
        blurred,
        window=window,
        n_fft=n_fft,
        hop_length=n_fft // 4,
        win_length=n_fft,
        power=1.0,
        n_iter=iterations,
        momentum=0.9,
        length=waveform.shape[0],
        rand_init=False,
    )
    return again
