"""Audio known by what it holds, not by where it lies: so that no evaluation row enters training under another name."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import soundfile

from lightning_audiorl.data.audio.reading import AudioError
from lightning_audiorl.data.manifest.schema import PREFIX
from lightning_audiorl.data.manifest.targets import all_segments
from lightning_audiorl.types import Segment, Utterance

#: Stretches of one file that share no more than this (or half of the shorter one) only touch: rounded cutting points.
TOUCH_S = 0.02
_BLOCK_FRAMES = 2**18
_SILENT = "silent-"
_TABLE = "heard_1"


class FileContent(NamedTuple):
    """A decoded file, or a cut of one: a hash of rate, channels and float32 samples, and its size.

    ``hash`` begins with ``silent-`` where all samples are 0. A flac copy of a wav has the wav's hash; another sample
    rate, another bit depth with rounding, or a lossy copy has not.
    """

    hash: str
    rate_hz: int
    num_frames: int


class Stretch(NamedTuple):
    """What one segment plays.

    Args:
        audio_filepath: as in the segment.
        file: hash of the whole decoded file; "" for a ``synthetic:`` address.
        cut: hash of the stretch itself (of address and duration for a ``synthetic:`` one); "" for digital silence.
        start_s: where it begins in the file, in seconds.
        end_s: where it ends.
    """

    audio_filepath: str
    file: str
    cut: str
    start_s: float
    end_s: float


def default_cache_path() -> Path:
    """``$XDG_CACHE_HOME/lightning_audiorl/content.sqlite``; without that variable under ``~/.cache``."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "lightning_audiorl" / "content.sqlite"


class ContentHashes:
    """Hashes of decoded audio, remembered in one sqlite file by absolute path, size and modification time.

    Several processes may use the file at once. Close it, or use it in a ``with`` statement, so that the last hashes
    are written. Within one instance a file is looked at once: open a new one after files may have changed.

    Args:
        path: the sqlite file; None takes `default_cache_path`.

    Raises:
        OSError: the file cannot be made or is no sqlite file; says which.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path).expanduser() if path is not None else default_cache_path()
        #: Files and cuts decoded because the cache did not have them.
        self.num_decoded = 0
        self._new: list[tuple[str, int, int, int, int, str, int, int]] = []
        self._known = lru_cache(maxsize=2**16)(self._look_up)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=60.0)
            with self._database:
                self._database.execute(
                    f"CREATE TABLE IF NOT EXISTS {_TABLE} (path TEXT, start INTEGER, count INTEGER, size INTEGER, "
                    "mtime_ns INTEGER, hash TEXT, rate_hz INTEGER, num_frames INTEGER, "
                    "PRIMARY KEY (path, start, count)) WITHOUT ROWID"
                )
        except (sqlite3.DatabaseError, OSError) as error:
            raise OSError(
                f"{self.path}: not usable as the cache of content hashes ({error}); delete it, or name another file"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what was found and let go of the file."""
        self._write()
        self._database.close()

    def file(self, path: str) -> FileContent:
        """The whole of a file.

        Raises:
            AudioError: missing or unreadable file.
        """
        return self._known(str(Path(path).absolute()), 0, -1)

    def stretch(self, segment: Segment) -> Stretch | None:
        """What a segment plays; None for ``synthetic:silence`` and silent files, which identify nothing.

        Raises:
            AudioError: missing or unreadable file, or an offset behind its end.
        """
        path = segment.audio_filepath
        if path.startswith(PREFIX):
            if path.removeprefix(PREFIX).partition("?")[0] == "silence":
                return None
            seconds = segment.duration_s or 0.0
            return Stretch(path, "", f"{path} {seconds:.4f} s", 0.0, seconds)
        whole = self.file(path)
        if whole.hash.startswith(_SILENT):
            return None
        start = round(segment.offset_s * whole.rate_hz)
        count = whole.num_frames - start
        if segment.duration_s is not None:
            count = min(count, round(segment.duration_s * whole.rate_hz))
        if count <= 0:
            raise AudioError(
                f"{path}: nothing at offset {segment.offset_s} s, the file is {whole.num_frames / whole.rate_hz:.3f} s "
                "long; correct offset and duration"
            )
        if start == 0 and count == whole.num_frames:
            cut = whole.hash
        else:
            cut = self._known(str(Path(path).absolute()), start, count).hash
        cut = "" if cut.startswith(_SILENT) else cut
        return Stretch(path, whole.hash, cut, start / whole.rate_hz, (start + count) / whole.rate_hz)

    def row(self, row: Utterance) -> list[Stretch]:
        """What the segments of a row play, and those of its ``target``, without those that identify nothing.

        Effects on the row change nothing.

        Raises:
            AudioError: see `stretch`; the message begins with the row's id.
        """
        try:
            return [found for segment in all_segments(row) if (found := self.stretch(segment)) is not None]
        except AudioError as error:
            raise AudioError(f"row {row.id!r}: {error}") from error

    def _look_up(self, path: str, start: int, count: int) -> FileContent:
        try:
            stat = os.stat(path)
        except OSError as error:
            raise AudioError(f"{path}: no such file; correct the path or remove the row") from error
        found = self._database.execute(
            f"SELECT hash, rate_hz, num_frames FROM {_TABLE} "
            "WHERE path = ? AND start = ? AND count = ? AND size = ? AND mtime_ns = ?",
            (path, start, count, stat.st_size, stat.st_mtime_ns),
        ).fetchone()
        if found is not None:
            return FileContent(*found)
        content = _decode(path, start, count)
        self.num_decoded += 1
        self._new.append((path, start, count, stat.st_size, stat.st_mtime_ns, *content))
        if len(self._new) >= 500:
            self._write()
        return content

    def _write(self) -> None:
        with self._database:
            self._database.executemany(f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self._new)
        self._new = []


def _decode(path: str, start: int, count: int) -> FileContent:
    """Hash ``count`` frames (-1: all) from ``start`` on, block by block."""
    try:
        with soundfile.SoundFile(path) as file:
            digest = hashlib.blake2b(f"{file.samplerate} Hz {file.channels} ch".encode(), digest_size=16)
            file.seek(start)
            num_frames, silent = 0, True
            for block in file.blocks(_BLOCK_FRAMES, frames=count, dtype="float32", always_2d=True):
                digest.update(block.tobytes())
                num_frames += len(block)
                silent = silent and not block.any()
            return FileContent((_SILENT if silent else "") + digest.hexdigest(), file.samplerate, num_frames)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(f"{path}: not readable as audio ({error}); convert it to wav or flac") from error


@dataclass(frozen=True)
class Collision:
    """Why a training row may not be used.

    Args:
        row_id: the training row.
        what: what of it, and how it meets the evaluation row.
        set_name: the evaluation set.
        other_id: the row of that set.
    """

    row_id: str
    what: str
    set_name: str
    other_id: str

    def __str__(self) -> str:
        return f"row {self.row_id!r}: {self.what} {self.set_name} row {self.other_id!r}"


class _Place(NamedTuple):
    """Where evaluation audio stands, and which part of its file it is."""

    set_name: str
    row_id: str
    start_s: float
    end_s: float


class EvaluationContent:
    """The audio of evaluation sets, which no training row may hold.

    Args:
        sets: rows by the name of their set, such as ``val/short``.
        hashes: the content hashes.

    Attributes:
        identity: a hash of names, row ids and audio content: what a mix was built against.

    Raises:
        AudioError: an evaluation row whose audio is missing or unreadable.
    """

    def __init__(self, sets: Mapping[str, Iterable[Utterance]], hashes: ContentHashes) -> None:
        self.hashes = hashes
        self._cuts: dict[str, _Place] = {}
        self._files: dict[str, dict[tuple[float, float], _Place]] = {}
        digest = hashlib.blake2b(digest_size=16)
        for name, rows in sets.items():
            for row in rows:
                stretches = hashes.row(row)
                for stretch in stretches:
                    self._add(name, row.id, stretch)
                heard = [(s.file, s.cut, s.start_s, s.end_s) for s in stretches]
                digest.update(repr((name, row.id, heard)).encode())
        self.identity = digest.hexdigest()

    def _add(self, name: str, row_id: str, stretch: Stretch) -> None:
        place = _Place(name, row_id, stretch.start_s, stretch.end_s)
        if stretch.cut:
            self._cuts.setdefault(stretch.cut, place)
        if stretch.file:
            self._files.setdefault(stretch.file, {}).setdefault((stretch.start_s, stretch.end_s), place)

    def collision(self, row: Utterance, stretches: Iterable[Stretch] | None = None) -> Collision | None:
        """The first evaluation row that shares audio with ``row``: the same stretch, or parts of one file that overlap.

        Args:
            row: a training row, constructed or plain.
            stretches: what `ContentHashes.row` said of it; None asks it.
        """
        for stretch in self.hashes.row(row) if stretches is None else stretches:
            place, how = self._cuts.get(stretch.cut) if stretch.cut else None, "holds the audio of"
            if place is None:
                there = self._files.get(stretch.file, {}).values() if stretch.file else ()
                place, how = next((p for p in there if _overlap(p, stretch)), None), "overlaps in its file with"
            if place is not None:
                what = f"{stretch.audio_filepath} ({stretch.start_s:.2f} to {stretch.end_s:.2f} s) {how}"
                return Collision(row.id, what, place.set_name, place.row_id)
        return None


def _overlap(place: _Place, stretch: Stretch) -> bool:
    shared_s = min(place.end_s, stretch.end_s) - max(place.start_s, stretch.start_s)
    shorter_s = min(place.end_s - place.start_s, stretch.end_s - stretch.start_s)
    return shared_s > min(TOUCH_S, shorter_s / 2)
