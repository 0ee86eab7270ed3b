"""A batch of clips on its way through an encoder: checks, each clip by itself, and all of them together again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_audiorl.types import PromptBatch


def clips_of(batch: PromptBatch) -> list[Tensor]:
    """Each clip [num_samples] without its padding, on the CPU, where feature extractors work."""
    out = []
    for wave, num_samples in zip(batch.waveform, batch.num_samples.tolist(), strict=True):
        out.append(wave[:num_samples].cpu())
    return out


def durations_of(batch: PromptBatch) -> list[float]:
    """Length of each clip in seconds."""
    return [num_samples / batch.sample_rate_hz for num_samples in batch.num_samples.tolist()]


def check_clips(
    batch: PromptBatch, family: str, rate_hz: int, min_samples: int, max_samples: int
) -> None:
    """Raise ValueError for another sample rate, or for a clip shorter or longer than the model takes (named).

    Example:
        >>> import torch
        >>> from lightning_audiorl.types import Utterance
        >>> batch = PromptBatch(torch.zeros(1, 80), torch.tensor([80]), 8000, (Utterance("a", (), "one", 0.01),))
        >>> check_clips(batch, "WhisperPolicy", rate_hz=16000, min_samples=1, max_samples=480000)
        Traceback (most recent call last):
            ...
        ValueError: WhisperPolicy wants 16000 Hz audio, got 8000; set sample_rate_hz
    """
    if batch.sample_rate_hz != rate_hz:
        raise ValueError(
            f"{family} wants {rate_hz} Hz audio, got {batch.sample_rate_hz}; set sample_rate_hz"
        )

    for row, num_samples in zip(batch.rows, batch.num_samples.tolist(), strict=True):
        if not min_samples <= num_samples <= max_samples:
            length = f"{num_samples / rate_hz:.3f}"
            shortest = f"{min_samples / rate_hz:.3f}"
            longest = f"{max_samples / rate_hz:.1f}"
            raise ValueError(
                f"row {row.id!r}: {length} s of audio; this model takes {shortest} to {longest} s (set the data "
                "module's min_duration_s and max_duration_s, or split the clip)"
            )


def padded_rows(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """[T, ...] of each clip -> [B, T, ...], zero-padded on the right, and the keep mask [B, T].

    Example:
        >>> padded, keep = padded_rows([torch.ones(1, 2), torch.ones(2, 2)])
        >>> padded.shape, keep.tolist()
        (torch.Size([2, 2, 2]), [[True, False], [True, True]])
    """
    padded = pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=padded.device)
    places = torch.arange(padded.shape[1], device=padded.device)
    return padded, places < lengths[:, None]


def by_length(
    encoder: Callable[[Tensor], Tensor], inputs: Tensor, lengths: list[int]
) -> list[Tensor]:
    """What an encoder that knows no padding makes of inputs [B, T, ...]: each row's own, as if it were alone.

    Rows of one length go through it together.

    Args:
        encoder: [n, T, ...] -> [n, F, E].
        inputs: padded on the right.
        lengths: B, of each row in T.

    Returns:
        B tensors [F, E].
    """
    places: dict[int, list[int]] = {}
    for b, length in enumerate(lengths):
        places.setdefault(length, []).append(b)

    out: dict[int, Tensor] = {}
    for length, rows in places.items():
        encoded = encoder(inputs[rows, :length])
        out.update(zip(rows, encoded, strict=True))
    return [out[b] for b in range(len(lengths))]


def joined_windows(
    outputs: Tensor, num_rows: Sequence[int], num_windows: Sequence[int]
) -> list[Tensor]:
    """What an encoder made of windows, clip by clip without padding.

    Example:
        >>> outputs = torch.arange(6.0).view(3, 2, 1)  # of a clip with two windows, and of one with one
        >>> [rows.flatten().tolist() for rows in joined_windows(outputs, [2, 1, 1], [2, 1])]
        [[0.0, 1.0, 2.0], [4.0]]

    Args:
        outputs: [N, F, E] of N windows, clip by clip.
        num_rows: N, rows of each window that are the clip's.
        num_windows: B, of each clip.
    """
    own = [output[:num] for output, num in zip(outputs, num_rows, strict=True)]
    rows = []
    start = 0
    for num in num_windows:
        rows.append(torch.cat(own[start : start + num]))
        start += num
    return rows
