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

from lightning_audiorl.data.manifest.schema import PREFIX
from lightning_audiorl.data.manifest.targets import all_segments
from lightning_audiorl.data.sound import AudioError, SoundReader
from lightning_audiorl.data.sound.places import absolute, stamp
from lightning_audiorl.types import Segment, Utterance

#: Stretches of one file that share no more than this (or half of the shorter one) only touch: rounded cutting points.
TOUCH_S = 0.02
_SILENT = "silent-"
#: To be numbered anew when what is hashed changes: hashes of both kinds never meet in one table.
_TABLE = "heard_2"
#: Hashes found are written to the cache in groups: one transaction per hash is slow.
_WRITE_EVERY = 500


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

    Attributes:
        num_decoded: files and cuts that were decoded, because the cache did not have them.

    Raises:
        OSError: the file cannot be made or is no sqlite file; says which.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import soundfile
        >>> with TemporaryDirectory() as folder, ContentHashes(f"{folder}/content.sqlite") as hashes:
        ...     soundfile.write(f"{folder}/a.wav", [0.5] * 8000, 8000)
        ...     soundfile.write(f"{folder}/b.flac", [0.5] * 8000, 8000)
        ...     hashes.file(f"{folder}/a.wav") == hashes.file(f"{folder}/b.flac")
        True
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = default_cache_path() if path is None else Path(path).expanduser()
        self.num_decoded = 0
        #: Lines of the table that are not written yet.
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
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
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
        full_path = absolute(path)
        return self._known(full_path, 0, -1)

    def stretch(self, segment: Segment) -> Stretch | None:
        """What a segment plays; None for ``synthetic:silence`` and silent files, which identify nothing.

        Raises:
            AudioError: missing or unreadable file, or an offset behind its end.
        """
        path = segment.audio_filepath
        if path.startswith(PREFIX):
            return _synthetic(segment)

        whole = self.file(path)
        if whole.hash.startswith(_SILENT):
            return None

        start, count = _frames(segment, whole)
        if start == 0 and count == whole.num_frames:
            cut = whole.hash
        else:
            full_path = absolute(path)
            cut = self._known(full_path, start, count).hash
        # A pause within a recording is digital silence in many files: it identifies nothing.
        if cut.startswith(_SILENT):
            cut = ""
        return Stretch(
            audio_filepath=path,
            file=whole.hash,
            cut=cut,
            start_s=start / whole.rate_hz,
            end_s=(start + count) / whole.rate_hz,
        )

    def row(self, row: Utterance) -> list[Stretch]:
        """What the segments of a row play, and those of its ``target``, without those that identify nothing.

        Effects on the row change nothing.

        Raises:
            AudioError: missing or unreadable file, or an offset behind its end; the message begins with the row's id.
        """
        try:
            stretches = [self.stretch(segment) for segment in all_segments(row)]
        except AudioError as error:
            raise AudioError(f"row {row.id!r}: {error}") from error
        return [stretch for stretch in stretches if stretch is not None]

    def _look_up(self, path: str, start: int, count: int) -> FileContent:
        """The content from the sqlite file, or by decoding ``count`` frames (-1: all) from ``start`` on."""
        try:
            size, mtime_ns = stamp(path)
        except (OSError, ValueError) as error:
            raise AudioError(f"{path}: no such file; correct the path or remove the row") from error

        # A file of another size or time is another file: its old line is passed over, and replaced below.
        found = self._database.execute(
            f"SELECT hash, rate_hz, num_frames FROM {_TABLE} "
            "WHERE path = ? AND start = ? AND count = ? AND size = ? AND mtime_ns = ?",
            (path, start, count, size, mtime_ns),
        ).fetchone()
        if found is not None:
            return FileContent(*found)

        content = _decode(path, start, count)
        self.num_decoded += 1
        self._new.append((path, start, count, size, mtime_ns, *content))
        if len(self._new) >= _WRITE_EVERY:
            self._write()
        return content

    def _write(self) -> None:
        with self._database:
            self._database.executemany(
                f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self._new
            )
        self._new = []


def _synthetic(segment: Segment) -> Stretch | None:
    """A ``synthetic:`` address, which is its own content; None for silence."""
    path = segment.audio_filepath
    kind = path.removeprefix(PREFIX).partition("?")[0]
    if kind == "silence":
        return None
    seconds = segment.duration_s or 0.0
    return Stretch(
        audio_filepath=path,
        file="",
        cut=f"{path} {seconds:.4f} s",
        start_s=0.0,
        end_s=seconds,
    )


def _frames(segment: Segment, whole: FileContent) -> tuple[int, int]:
    """First frame and number of frames that a segment plays of its file; AudioError where it plays none."""
    start = round(segment.offset_s * whole.rate_hz)
    count = whole.num_frames - start
    if segment.duration_s is not None:
        count = min(count, round(segment.duration_s * whole.rate_hz))

    if count <= 0:
        raise AudioError(
            f"{segment.audio_filepath}: nothing at offset {segment.offset_s} s, the file is "
            f"{whole.num_frames / whole.rate_hz:.3f} s long; correct offset and duration"
        )
    return start, count


def _decode(path: str, start: int, count: int) -> FileContent:
    """Hash ``count`` frames (-1: all) from ``start`` on, block by block."""
    with SoundReader(path) as sound:
        layout = f"{sound.rate_hz} Hz {sound.channels} ch"
        digest = hashlib.blake2b(layout.encode(), digest_size=16)
        num_frames = 0
        silent = True
        for block in sound.blocks(start, None if count < 0 else count):
            digest.update(block.tobytes())
            num_frames += len(block)
            silent = silent and not block.any()

        prefix = _SILENT if silent else ""
        return FileContent(prefix + digest.hexdigest(), sound.rate_hz, num_frames)


@dataclass(frozen=True)
class Collision:
    """Why a training row may not be used.

    Args:
        row_id: the training row.
        what: what of it, and how it meets the evaluation row.
        set_name: the evaluation set.
        other_id: the row of that set.

    Example:
        >>> str(Collision("train:7", "a.wav (0.00 to 1.50 s) holds the audio of", "val/short", "val:1"))
        "row 'train:7': a.wav (0.00 to 1.50 s) holds the audio of val/short row 'val:1'"
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
        hashes: of decoded audio; where files not seen before are looked up.

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
                # Without the paths: the same sets in another folder are the same sets.
                content = [
                    (stretch.file, stretch.cut, stretch.start_s, stretch.end_s)
                    for stretch in stretches
                ]
                digest.update(repr((name, row.id, content)).encode())
        self.identity = digest.hexdigest()

    def _add(self, name: str, row_id: str, stretch: Stretch) -> None:
        place = _Place(name, row_id, stretch.start_s, stretch.end_s)
        if stretch.cut:
            self._cuts.setdefault(stretch.cut, place)
        if stretch.file:
            places = self._files.setdefault(stretch.file, {})
            places.setdefault((stretch.start_s, stretch.end_s), place)

    def collision(
        self, row: Utterance, stretches: Iterable[Stretch] | None = None
    ) -> Collision | None:
        """The first evaluation row that shares audio with ``row``: the same stretch, or parts of one file that overlap.

        Args:
            row: a training row, constructed or plain.
            stretches: what `ContentHashes.row` found for it; None asks it.

        Raises:
            AudioError: the row's audio is missing or unreadable.
        """
        for stretch in self.hashes.row(row) if stretches is None else stretches:
            match = self._match(stretch)
            if match is not None:
                place, how = match
                span = f"{stretch.start_s:.2f} to {stretch.end_s:.2f} s"
                what = f"{stretch.audio_filepath} ({span}) {how}"
                return Collision(row.id, what, place.set_name, place.row_id)
        return None

    def _match(self, stretch: Stretch) -> tuple[_Place, str] | None:
        """Evaluation audio that a stretch shares, and how; None where it shares none."""
        # The same samples count wherever they lie: in a copy, or cut out of a longer file.
        if stretch.cut and stretch.cut in self._cuts:
            return self._cuts[stretch.cut], "holds the audio of"

        if stretch.file:
            for place in self._files.get(stretch.file, {}).values():
                if _overlap(place, stretch):
                    return place, "overlaps in its file with"
        return None


def _overlap(place: _Place, stretch: Stretch) -> bool:
    """Whether two stretches of one file share more than rounded cutting points."""
    shared_s = min(place.end_s, stretch.end_s) - max(place.start_s, stretch.start_s)
    place_s = place.end_s - place.start_s
    stretch_s = stretch.end_s - stretch.start_s
    shorter_s = min(place_s, stretch_s)
    return shared_s > min(TOUCH_S, shorter_s / 2)
