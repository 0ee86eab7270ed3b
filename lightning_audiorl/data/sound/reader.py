"""An audio file by frames: its true length, and any stretch of it as a decoder that began at the start gives it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import soundfile

from lightning_audiorl.data.sound import mpeg, ogg
from lightning_audiorl.data.sound.foreign import convert_to_flac, kind_of
from lightning_audiorl.data.sound.parts import Part, PartFile
from lightning_audiorl.data.sound.places import (
    file_of,
    first_bytes,
    has_changed,
    name_of,
    part_file,
    place_of,
    size_of,
    stamp,
)

#: Frames are decoded in blocks of so many: what a header promises is never allocated before it has come.
BLOCK_FRAMES = 2**18
#: After a seek a decoder lacks what came before, so this many frames are decoded first and dropped. An mp3 frame may
#: use bits of up to 85 frames before it; Ogg is sought by pages of some seconds, the last of which can lie wrongly.
_FRAMES_BEFORE = {"mpeg": 100 * 1152, "ogg": 2**18, "": 0}
#: libsndfile's number of frames where a header does not know is 2**63 - 1.
_UNKNOWN_FRAMES = 2**62
#: A header that promises more frames than this per byte of its file is not believed before its last one is seen.
_FRAMES_PER_BYTE = 8
#: Beginnings of files that may be called mp3 and are none.
_CONTAINERS = (b"RIFF", b"OggS", b"fLaC", b"FORM")
#: Layouts and lengths that are remembered, by file and modification time.
_REMEMBERED = 2**12


class AudioError(ValueError):
    """Audio that cannot be used; names the file, what is wrong, and how to mend it."""


class _Decoder(soundfile.SoundFile):
    """soundfile's reader without its seek after each read, which some formats cannot do and some do wrongly."""

    def seekable(self) -> bool:
        return False

    @property
    def kind(self) -> str:
        """What to heed in reading: ``mpeg``, ``ogg`` or nothing."""
        if self.format == "MP3" or self.subtype.startswith("MPEG_LAYER"):
            return "mpeg"
        return "ogg" if self.format == "OGG" else ""

    def stretch(self, start: int, count: int, may_seek: bool = True) -> Iterator[np.ndarray]:
        """Up to ``count`` frames from ``start`` on, in blocks [frames, channels] float32; for a file not read yet."""
        if start >= self.frames:
            return
        at = max(0, start - _FRAMES_BEFORE[self.kind])
        can_seek = super().seekable() and self.frames < _UNKNOWN_FRAMES
        # At its start a file is already; seeking there is wrong in some Ogg files that were cut.
        if at > 0 and can_seek and may_seek:
            self.seek(at)
        else:
            at = 0

        end = start + count
        while at < end:
            block = self.read(min(end - at, BLOCK_FRAMES), dtype="float32", always_2d=True)
            if len(block) == 0:
                return
            before = max(0, start - at)
            at += len(block)
            if before < len(block):
                yield block[before:]


class SoundReader:
    """An audio file, open for reading.

    Any stretch equals the same stretch of the whole decoded file; in mp3 and Ogg up to the rounding of a decoder that
    began elsewhere, about 1e-7. Where a header guesses the length or speaks for a part of the file only (mp3 without
    a header of its own, cut or joined; joined Ogg files; FLAC from a pipe) what is there is counted.

    Cost: a stretch of PCM or FLAC is all that is read. In mp3 and Ogg some seconds before it are decoded, too; in FLAC
    from a pipe, GSM and the like, and Ogg files that were cut, all from the start on. Counting mp3 frames reads the
    file once per process, without decoding it.

    Args:
        path: the file, or the address of a stretch of one (see `places`).

    Attributes:
        rate_hz: its sampling rate.
        channels: number of channels.
        header_frames: frames (samples per channel) by its header, which may be wrong.

    Raises:
        AudioError: no file, no audio, or audio of an unknown format; names the path.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     soundfile.write(f"{folder}/a.wav", np.zeros((800, 2)), 8000)
        ...     with SoundReader(f"{folder}/a.wav") as sound:
        ...         sound.rate_hz, sound.num_frames, sound.read(790, 100).shape
        (8000, 800, (10, 2))
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file, has_header = _open(path)
        self.rate_hz = int(self._file.samplerate)
        self.channels = int(self._file.channels)
        self.header_frames = int(self._file.frames) if has_header else 0

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
        """Let go of the file."""
        self._file.close()

    @property
    def num_frames(self) -> int:
        """Frames of the file; counted where its header does not know them.

        Raises:
            AudioError: parts of several sampling rates, or a header that promises what is not there.
        """
        parts = self._parts()
        if parts is not None:
            return sum(_frames_of(self.path, part) for part in parts)
        if self.header_frames >= _UNKNOWN_FRAMES:
            return _counted(self.path, *stamp(self.path))
        if self.header_frames > _FRAMES_PER_BYTE * size_of(self.path):
            self._refuse_empty_promise()
        return self.header_frames

    def blocks(self, start: int, count: int | None) -> Iterator[np.ndarray]:
        """``count`` frames (None: all) from ``start`` on, fewer where the file ends: [frames, channels] float32.

        A reader gives one stretch only: open another one for the next.

        Raises:
            AudioError: the file is damaged in this stretch.
        """
        # An Ogg file that others follow is right by itself, so that its pages need not be looked at.
        in_first = count is not None and start + count <= self.header_frames
        parts = None if in_first and self._file.kind == "ogg" else self._parts()
        try:
            if parts is not None:
                yield from self._blocks_of_parts(parts, start, count)
                return
            left = max(0, self.header_frames - start) if count is None else count
            may_seek = self._file.kind != "ogg" or _seeks_right(self.path, *stamp(self.path))
            yield from self._file.stretch(start, left, may_seek)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise _damaged(self.path, error) from error

    def read(self, start: int, count: int | None) -> np.ndarray:
        """The stretch that `blocks` gives, in one piece."""
        blocks = list(self.blocks(start, count))
        if not blocks:
            return np.zeros((0, self.channels), dtype=np.float32)
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def _parts(self) -> tuple[Part, ...] | None:
        """What the file is made of; None where its header speaks for all of it."""
        if not self._file.kind:
            return None
        parts = _parts_of(self.path, self._file.kind, *stamp(self.path))
        for part in parts or ():
            found = f"{part.rate_hz} Hz, {part.channels} channels"
            wanted = f"{self.rate_hz} Hz, {self.channels} channels"
            if part.rate_hz and found != wanted:
                raise AudioError(
                    f"{self.path}: joined from files of {wanted} and {found}; {convert_to_flac(self.path)}"
                )
        return parts

    def _blocks_of_parts(
        self, parts: tuple[Part, ...], start: int, count: int | None
    ) -> Iterator[np.ndarray]:
        left = _UNKNOWN_FRAMES if count is None else count
        for part in parts:
            num_frames = _frames_of(self.path, part)
            if start >= num_frames:
                start -= num_frames
                continue
            with _Decoder(part_file(self.path, part)) as file:
                wanted = min(left, num_frames - start)
                for block in file.stretch(part.skip + start, wanted):
                    left -= len(block)
                    yield block
            start = 0
            if left == 0:
                return

    def _refuse_empty_promise(self) -> None:
        """Raise AudioError where the last frame that the header promises does not exist."""
        with _Decoder(_whole(self.path)) as file:
            try:
                file.seek(self.header_frames - 1)
                is_there = len(file.read(1)) == 1
            except (soundfile.LibsndfileError, RuntimeError):
                is_there = False
        if not is_there:
            header_s = self.header_frames / self.rate_hz
            size = size_of(self.path)
            raise AudioError(
                f"{self.path}: its header promises {header_s:.0f} s, which its {size} bytes do not hold; "
                f"{convert_to_flac(self.path)}"
            )


def length_s(path: str) -> float:
    """How long a file is, in seconds: by its header, and by its frames where the header does not know.

    Raises:
        AudioError: see `SoundReader`.
    """
    with SoundReader(path) as sound:
        return sound.num_frames / sound.rate_hz


def _open(path: str) -> tuple[_Decoder, bool]:
    """The file's decoder, and whether it knows the file's header; else the decoder is that of the first part."""
    _check_there(path)

    try:
        parts = _parts_before_opening(path)
        if parts:
            return _Decoder(part_file(path, parts[0])), False
        # By this ending soundfile would take any file for samples without a header, and ask for their rate.
        if path.lower().endswith(".raw") and place_of(path) is None:
            return _Decoder(os.open(path, os.O_RDONLY)), True
        file = _Decoder(_whole(path))
    except OSError as error:
        raise AudioError(
            f"{path}: cannot be opened ({error.strerror}); mend its permissions or remove the row"
        ) from error
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise _refused(path) from error

    # Other endings (snd, gsm, vox) stand for samples without a header, whatever the file holds.
    if file.format == "RAW" and kind_of(path) is not None:
        file.close()
        raise _refused(path)
    return file, True


def _check_there(path: str) -> None:
    """Raise AudioError where there is no such file, or an address was written of another one."""
    try:
        file = file_of(path)
    except ValueError as error:
        raise AudioError(str(error)) from error
    if not os.path.isfile(file):
        problem = "is a folder" if os.path.isdir(file) else "no such file"
        raise AudioError(f"{path}: {problem}; correct the path or remove the row")
    if has_changed(path):
        raise AudioError(
            f"{path}: the file has {os.path.getsize(file)} bytes now, so the clip may lie elsewhere in it; make the "
            "manifest again"
        )


def _whole(path: str) -> str | PartFile:
    """What soundfile opens to read the whole clip."""
    return path if place_of(path) is None else part_file(path)


def _refused(path: str) -> AudioError:
    """The error for a file that has no decoder."""
    try:
        kind = kind_of(path)
    except OSError as error:
        kind = f"{error.strerror}; mend its permissions or remove the row"
    if kind is None:
        kind = f"its format is not known; {convert_to_flac(path)}"
    return AudioError(f"{path}: not readable as audio: {kind}")


def _damaged(path: str, error: Exception) -> AudioError:
    """The error for a file whose decoder stops."""
    reason = str(getattr(error, "error_string", error))
    reason = reason.removeprefix("Error : ").strip().removesuffix(".")
    return AudioError(f"{path}: damaged ({reason}); restore the file or remove the row")


def _parts_before_opening(path: str) -> tuple[Part, ...] | None:
    """Parts of an mp3 file that libsndfile would guess the length of, or not know; None of any other file."""
    head = first_bytes(path, 4)
    is_named_so = name_of(path).lower().endswith((".mp3", ".mp2", ".mpga"))
    if mpeg.begins(head) or (is_named_so and head not in _CONTAINERS and kind_of(path) is None):
        return _parts_of(path, "mpeg", *stamp(path))
    return None


@lru_cache(maxsize=_REMEMBERED)
def _parts_of(path: str, kind: str, size: int, mtime_ns: int) -> tuple[Part, ...] | None:
    """What a file is made of; None where its header speaks for all of it. Size and time tell files from later ones."""
    parts_of = mpeg.parts_of if kind == "mpeg" else ogg.parts_of
    if place_of(path) is not None:
        return parts_of(first_bytes(path, size_of(path)))
    # Mapped, so that only what is looked at is read.
    with (
        Path(path).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        return parts_of(data)


@lru_cache(maxsize=_REMEMBERED)
def _counted(path: str, size: int, mtime_ns: int) -> int:
    """Frames of a file, by decoding it. Size and time tell files from later ones."""
    num_frames = 0
    with _Decoder(_whole(path)) as file:
        for block in file.stretch(0, _UNKNOWN_FRAMES):
            num_frames += len(block)
    return num_frames


@lru_cache(maxsize=_REMEMBERED)
def _seeks_right(path: str, size: int, mtime_ns: int) -> bool:
    """Whether an Ogg file can be sought: not where its pages count from elsewhere, as in files that were cut."""
    with _Decoder(_whole(path)) as file:
        start = file.samplerate
        whole = file.read(4 * start, dtype="float32", always_2d=True)[2 * start :]
    if len(whole) == 0:
        return True
    with _Decoder(_whole(path)) as file:
        file.seek(start)
        sought = file.read(3 * start, dtype="float32", always_2d=True)[start:]

    # A decoder needs some time to forget where it began: hence the second in between, and what is allowed here.
    if sought.shape != whole.shape:
        return False
    allowed = 0.01 * np.abs(whole).max() + 1e-6
    return bool(np.abs(sought - whole).max() <= allowed)


def _frames_of(path: str, part: Part) -> int:
    """Frames that a part plays."""
    if part.num_frames is not None:
        return part.num_frames
    with _Decoder(part_file(path, part)) as file:
        return int(file.frames)
