"""A batch of clips before it goes to an encoder: checks, and each clip by itself."""

from __future__ import annotations

from torch import Tensor

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
