"""Small audio files and rows for the data tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from lightning_audiorl.data import RowSource
from lightning_audiorl.types import Segment, Utterance

SPEAKERS = ("ann", "bob", "cy")


def write_tone(
    path: Path, seconds: float = 0.5, rate_hz: int = 16000, hz: float = 440.0, channels: int = 1
) -> Path:
    """A sine at half of full scale; with two channels the second is silent."""
    wave = np.zeros((round(seconds * rate_hz), channels), dtype="float32")
    wave[:, 0] = 0.5 * np.sin(2 * np.pi * hz * np.arange(len(wave)) / rate_hz)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate_hz)
    return path


def fake_fsdd(root: Path, num_index: int = 12) -> str:
    """A folder in the published layout: 3 speakers x 10 digits x ``num_index`` very short recordings at 8 kHz."""
    for number, speaker in enumerate(SPEAKERS):
        for digit in range(10):
            for index in range(num_index):
                seconds = 0.05 + 0.002 * digit + 0.001 * index
                name = f"{digit}_{speaker}_{index}.wav"
                write_tone(
                    root / "recordings" / name, seconds, 8000, hz=200.0 + 50 * digit + 10 * number
                )
    return str(root)


class Rows(RowSource):
    """Silent rows of given lengths, ids ``<name>0``, ``<name>1``, ..."""

    def __init__(self, durations: list[float], name: str = "r") -> None:
        self.durations, self.name = durations, name

    def __len__(self) -> int:
        return len(self.durations)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        seconds = self.durations[index]
        return Utterance(
            f"{self.name}{index}", (Segment("synthetic:silence", seconds),), "x", seconds
        )
