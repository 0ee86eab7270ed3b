"""What all corpora spoken by espeak-ng share: sentences kept as FLAC files, and rows of one voice, speed and pitch."""

from __future__ import annotations

import hashlib
import os
import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import soundfile
import torch
from torchaudio.functional import resample

from lightning_audiorl.data.corpora.espeak_engine import SAMPLE_RATE_HZ as ENGINE_RATE_HZ
from lightning_audiorl.data.corpora.espeak_engine import resolve_voice, synthesise
from lightning_audiorl.data.draws import check_span, pick, seconds, whole
from lightning_audiorl.data.manifest.schema import PREFIX
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.ops.randomness import keyed_uniform
from lightning_audiorl.types import Segment, Utterance

SAMPLE_RATE_HZ = 16000
SILENCE = f"{PREFIX}silence"


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/lightning_audiorl/espeak``, under ``~/.cache`` where that is not set."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "lightning_audiorl" / "espeak"


def speak_to_file(cache_dir: Path, sentence: str, voice: str, rate_wpm: int, pitch: int) -> Path:
    """The 16 kHz mono FLAC file of a sentence, rendered when it is not there yet. Safe between processes.

    Args:
        cache_dir: folder of the files.
        sentence: what to say.
        voice: espeak-ng voice, such as ``en-us+f2``.
        rate_wpm: speed in words per minute.
        pitch: 0 to 99.

    Raises:
        ImportError: the extra ``synth`` is not installed.
        ValueError: see `synthesise`.
    """
    # Another version of espeak may speak otherwise, so its version is part of the key.
    version = metadata.version("espeakng-loader")
    settings = repr((version, sentence, voice, rate_wpm, pitch))
    key = hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()
    path = cache_dir / key[:2] / f"{key}.flac"
    if path.exists():
        return path

    samples = torch.from_numpy(synthesise(sentence, voice, rate_wpm, pitch))
    samples = resample(samples, ENGINE_RATE_HZ, SAMPLE_RATE_HZ)
    # Resampling may overshoot full scale a little.
    samples = samples.clamp(-1, 1)

    # Written beside it and renamed: another process sees the whole file or none.
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            soundfile.write(file, samples.numpy(), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return path


def spoken_segment(
    cache_dir: Path, sentence: str, voice: str, rate_wpm: int, pitch: int, gap_s: float = 0.0
) -> Segment:
    """A sentence as a segment with ``gap_s`` of silence before it; the arguments are those of `speak_to_file`."""
    path = str(speak_to_file(cache_dir, sentence, voice, rate_wpm, pitch))
    duration_s = soundfile.info(path).frames / SAMPLE_RATE_HZ
    return Segment(path, duration_s, gap_s=gap_s)


@dataclass(frozen=True)
class Delivery:
    """How one row is spoken, drawn from the ranges of its source.

    Args:
        voice: espeak-ng voice.
        rate_wpm: speed in words per minute.
        pitch: 0 to 99.
        u_length: share in [0, 1) that decides how long the row is.
        start_s: silence before the first sentence, in seconds.
        end_s: silence after the last one.
    """

    voice: str
    rate_wpm: int
    pitch: int
    u_length: float
    start_s: float
    end_s: float

    @property
    def ending(self) -> list[Segment]:
        """The silence after the last sentence, as segments: none where it has no length."""
        if self.end_s <= 0:
            return []
        return [Segment(SILENCE, self.end_s)]

    @property
    def extra(self) -> dict[str, Any]:
        """What a row keeps of its delivery beside the voice, which is its speaker."""
        return {"rate_wpm": self.rate_wpm, "pitch": self.pitch}


class SpokenRows(RowSource):
    """Rows spoken by espeak-ng, each built when it is first asked for. A subclass says what is spoken.

    Args:
        num_rows: how many rows.
        voices: espeak-ng voices to draw from.
        rate_wpm: (lowest, highest) speed in words per minute, one draw for each row.
        pitch: (lowest, highest) pitch, 0 to 99, one draw for each row.
        gap_s: (lowest, highest) silence between sentences in seconds, in steps of 0.01.
        edge_s: (lowest, highest) silence added before the first and after the last sentence, in seconds.
        cache_dir: where sentences are kept as FLAC files; None means ``default_cache_dir()``.

    Raises:
        ImportError: the extra ``synth`` is not installed.
        ValueError: unknown voice or none, no row, or an empty range; begins with the name of the class.
    """

    #: Begins the ids of the rows and keys every draw: a subclass builds it from all of its settings but ``num_rows``.
    _name: str

    def __init__(
        self,
        num_rows: int,
        voices: Sequence[str],
        rate_wpm: tuple[int, int],
        pitch: tuple[int, int],
        gap_s: tuple[float, float],
        edge_s: tuple[float, float],
        cache_dir: str | None,
    ) -> None:
        where = type(self).__name__
        if num_rows < 1:
            raise ValueError(f"{where}: want num_rows >= 1, got {num_rows}")

        self.num_rows = num_rows
        self.rate_wpm = check_span(f"{where}.rate_wpm", rate_wpm, 80)
        self.pitch = check_span(f"{where}.pitch", pitch, 0)
        self.gap_s = check_span(f"{where}.gap_s", gap_s, 0.0)
        self.edge_s = check_span(f"{where}.edge_s", edge_s, 0.0)

        self.voices = tuple(voices)
        if not self.voices:
            raise ValueError(f"{where}.voices: want at least one voice, got none")
        for voice in self.voices:
            resolve_voice(voice)

        folder = Path(cache_dir or default_cache_dir())
        self.cache_dir = folder.expanduser().absolute()
        self._rows: dict[int, Utterance] = {}

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        check_index(index, self.num_rows, self)
        if index not in self._rows:
            row_id = f"{self._name}-{index:06d}"
            self._rows[index] = self._build(row_id)
        return self._rows[index]

    @abstractmethod
    def _build(self, row_id: str) -> Utterance:
        """The row of this id, which keys its draws."""

    def _delivery(self, row_id: str) -> Delivery:
        draws = keyed_uniform(6, row_id, "row")
        u_voice, u_rate, u_pitch, u_length, u_start, u_end = draws.tolist()
        return Delivery(
            voice=pick(self.voices, u_voice),
            rate_wpm=whole(self.rate_wpm, u_rate),
            pitch=whole(self.pitch, u_pitch),
            u_length=u_length,
            start_s=seconds(self.edge_s, u_start),
            end_s=seconds(self.edge_s, u_end),
        )

    def _spoken(self, sentence: str, delivery: Delivery, gap_s: float) -> Segment:
        return spoken_segment(
            self.cache_dir,
            sentence,
            voice=delivery.voice,
            rate_wpm=delivery.rate_wpm,
            pitch=delivery.pitch,
            gap_s=gap_s,
        )
