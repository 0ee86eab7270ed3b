"""Sound files, whole and to the sample, whatever their headers say."""

from __future__ import annotations

from lightning_audiorl.data.sound.reader import AudioError, SoundReader, length_s

__all__ = ["AudioError", "SoundReader", "length_s"]
