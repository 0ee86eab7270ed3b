"""Clips to codes and codes to speech, through a codec in batches of neighbouring lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightning_audiorl.codecs.base import Codec, SpeakerCondition
from lightning_audiorl.models.decoding.tokens import padded
from lightning_audiorl.types import Speech


def batches_by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Indices of the rows that have any length, shortest first, at most ``size`` together.

    Example:
        >>> list(batches_by_length([7, 0, 3, 5], size=2))
        [[2, 3], [0]]
    """
    by_length = sorted(range(len(lengths)), key=lambda i: lengths[i])
    order = [i for i in by_length if lengths[i]]
    return (order[i : i + size] for i in range(0, len(order), size))


def encode_clips(
    codec: Codec, waveform: Tensor, num_samples: Tensor, batch_size: int
) -> list[list[int]]:
    """The codes of each clip; none for a clip of 0 samples.

    Args:
        codec: on the waveform's device.
        waveform: [B, S].
        num_samples: [B].
        batch_size: most clips at once.
    """
    out: list[list[int]] = [[] for _ in waveform]
    for index in batches_by_length(num_samples.tolist(), batch_size):
        clips = waveform[index, : int(num_samples[index].max())]
        with torch.autocast(clips.device.type, enabled=False):  # rounded, it would give other codes
            codes, lengths = codec.encode(clips.float(), num_samples[index])

        for i, row, length in zip(index, codes.tolist(), lengths.tolist(), strict=True):
            out[i] = row[:length]
    return out


def decode_rows(
    codec: Codec,
    rows: Sequence[Sequence[int]],
    condition: SpeakerCondition | None,
    device: torch.device,
    batch_size: int,
) -> list[Speech]:
    """Speech of each row of codes, on the CPU; no sample for a row without codes.

    Args:
        codec: on ``device``.
        rows: codes without prompt and stop token.
        condition: the speaker prompt of each row, where there are any.
        device: where the codec computes.
        batch_size: most rows at once.
    """
    rate_hz = codec.output_sample_rate_hz
    no_codes = torch.zeros(0, dtype=torch.long)
    out = [Speech(torch.zeros(0), rate_hz, no_codes) for _ in rows]
    for index in batches_by_length([len(row) for row in rows], batch_size):
        codes, keep = padded([rows[i] for i in index], 0, device, "right")
        wanted = None if condition is None else condition.select(index).to(device)
        with torch.autocast(device.type, enabled=False):
            waveform, num_samples = codec.decode(codes, keep.sum(-1), wanted)

        # Each sample on its own: a view would hold the whole batch.
        for i, wave, num in zip(index, waveform.cpu(), num_samples.tolist(), strict=True):
            out[i] = Speech(wave[:num].clone(), rate_hz, torch.tensor(rows[i]))
    return out
