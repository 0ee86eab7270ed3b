"""When a sample of speech says nothing: it is empty, or there is no sound in it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_audiorl.types import Speech

#: Speech whose loudest tenth of a second is below this level says nothing; 0 is full scale. Speaker prompts are held
#: to the same level by default (``limits.min_prompt_dbfs`` of a policy).
SILENCE_DBFS = -60.0
_CHUNK_S = 0.1


def sound_dbfs(waveform: Tensor, sample_rate_hz: int) -> float:
    """Level of the loudest tenth of a second: root mean square about its mean, for a constant cannot be heard.

    Args:
        waveform: [num_samples].
        sample_rate_hz: of it.

    Returns:
        dB relative to full scale; -inf without sound, NaN where samples are not finite.

    Example:
        >>> wave = torch.tensor([0.1, -0.1]).repeat(4000)
        >>> round(sound_dbfs(wave, 8000)), sound_dbfs(torch.full((8000,), 0.5), 8000)
        (-20, -inf)
    """
    if not len(waveform):
        return -math.inf

    # In float64: the square of a very large sample is no infinity there.
    wave = waveform.double()
    size = max(2, round(_CHUNK_S * sample_rate_hz))
    num_whole = len(wave) // size
    powers = [wave.new_zeros(1)]
    if num_whole:
        whole = wave[: num_whole * size].reshape(num_whole, size)
        powers.append(whole.var(-1, correction=0))

    # A single sample has no level of its own.
    rest = wave[num_whole * size :]
    if len(rest) > 1:
        powers.append(rest.var(correction=0)[None])

    loudest = float(torch.cat(powers).max())
    return 10 * math.log10(loudest) if loudest else -math.inf


def says_nothing(speech: Speech) -> bool:
    """Whether a sample is empty, or silent throughout; not where samples are NaN or infinite, which is a failure.

    Example:
        >>> codes = torch.zeros(25)
        >>> says_nothing(Speech(torch.zeros(8000), 8000, codes)), says_nothing(Speech(torch.randn(8000), 8000, codes))
        (True, False)
    """
    return sound_dbfs(speech.waveform, speech.sample_rate_hz) < SILENCE_DBFS
