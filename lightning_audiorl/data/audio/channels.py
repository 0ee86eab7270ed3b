"""Several channels as one."""

from __future__ import annotations

import logging

from torch import Tensor

_log = logging.getLogger(__name__)

#: Below this share of the power that unrelated channels would have together, they cancel each other.
_CANCELLED = 0.05
_told: set[str] = set()


def to_mono(audio: Tensor, path: str) -> Tensor:
    """[frames] of [frames, channels]: their mean, or the loudest channel where the mean cancels them.

    Channels of opposite phase (a swapped wire) sum to silence: the first such file is named in the log.

    Args:
        audio: [frames, channels] float32.
        path: where it was read, for the log.

    Example:
        >>> import torch
        >>> to_mono(torch.tensor([[0.5, 0.25], [-0.5, 0.25]]), "a.wav")
        tensor([ 0.3750, -0.1250])
        >>> to_mono(torch.tensor([[0.5, -0.5], [-0.25, 0.25]]), "a.wav")
        tensor([ 0.5000, -0.2500])
    """
    mono = audio.mean(dim=1)
    num_channels = audio.shape[1]
    if num_channels == 1:
        return mono

    powers = audio.square().mean(dim=0)
    unrelated = float(powers.sum()) / num_channels**2
    if float(mono.square().mean()) >= _CANCELLED * unrelated:
        return mono

    if not _told:
        _told.add(path)
        _log.warning(
            "%s: its channels are of opposite phase and cancel each other; the loudest one is taken, here and in "
            "other such files",
            path,
        )
    return audio[:, int(powers.argmax())].contiguous()
