"""The sound of a row: reading, effects, augmentation, made-up sounds, and hashes of its content."""

from __future__ import annotations

from lightning_audiorl.data.audio.reading import (
    OVERRUN_S,
    AudioCache,
    AudioError,
    read_audio,
    read_segment,
)

__all__ = [
    "OVERRUN_S",
    "AudioCache",
    "AudioError",
    "read_audio",
    "read_segment",
]
