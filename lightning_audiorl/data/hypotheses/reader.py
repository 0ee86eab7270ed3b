"""Decoded hypotheses beside a manifest: one JSON line per row and model, as ``audiorl predict`` writes them."""

from __future__ import annotations

import os
import re
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from lightning_audiorl.data.hypotheses.schema import (
    HypothesisError,
    LineError,
    Predicted,
    Sample,
    SpeechSample,
    open_lines,
    parse_line,
    read_hypotheses,
    to_line,
)
from lightning_audiorl.types import Segment, Utterance

__all__ = [
    "HypothesisError",
    "HypothesisFiles",
    "Predicted",
    "Sample",
    "SpeechSample",
    "read_hypotheses",
    "row_fingerprint",
    "to_line",
]

_ID_FIRST = re.compile(rb'\s*\{\s*"id"\s*:\s*("(?:[^"\\]|\\.)*")')


def row_fingerprint(row: Utterance) -> str:
    """Short hash (16 hexadecimal digits) of what a row's hypotheses depend on.

    File names without their folders, offsets, durations and gaps to the microsecond, text, language and effects, and
    what a speaker prompt says: a folder may move, audio and text may not change.

    Example:
        >>> from lightning_audiorl.types import Segment
        >>> row = Utterance("a", (Segment("/old/a.wav", 1.5),), "one two", 1.5)
        >>> moved = Utterance("a", (Segment("/new/a.wav", 1.5),), "one two", 1.5)
        >>> row_fingerprint(row) == row_fingerprint(moved)
        True
    """
    segments = [_segment_fields(segment) for segment in row.segments]
    fields = [row.text, row.lang, str(len(segments)), *segments, *row.effects]
    if row.spoken_text is not None:
        fields.append(f"spoken:{row.spoken_text}")
    if "prompt_text" in row.extra:
        fields.append(f"prompt:{row.extra['prompt_text']}")

    # With its length in front, no text can be taken for two fields.
    content = "".join([f"{len(field)}:{field}" for field in fields])
    return blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _segment_fields(segment: Segment) -> str:
    name = segment.audio_filepath.rpartition("/")[2]
    length = "end"
    if segment.duration_s is not None:
        length = f"{segment.duration_s:.6f}"
    return f"{name}|{segment.offset_s:.6f}|{segment.gap_s:.6f}|{length}"


def id_key(row_id: str) -> int:
    """8 bytes of a hash, for ids of any length. Two ids may share a key: compare the ids, too."""
    digest = blake2b(row_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _id_of(line: bytes) -> str:
    """The id of a line."""
    # Where the id stands first, as it does in our own files, the rest need not be parsed.
    if match := _ID_FIRST.match(line):
        with suppress(ValueError):
            return msgspec.json.decode(match[1], type=str)
    return parse_line(line).id


class HypothesisFiles:
    """The hypotheses of manifest rows, from one or more files in any order.

    Holds 22 bytes per line; a line is read and parsed when its row is asked for. Works in processes that were forked,
    and travels to others.

    Args:
        paths: files that ``audiorl predict`` wrote.

    Raises:
        FileNotFoundError: no such file.
        HypothesisError: for a file without lines; a line without an id, naming file, line and field.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(str(Path(path).expanduser()) for path in paths)
        if not self.paths or isinstance(paths, str):
            raise HypothesisError(
                f"HypothesisFiles: expected a list of one or more files, got {paths!r}"
            )
        self._files: dict[int, BinaryIO] = {}
        self._index()

    def _index(self) -> None:
        """Note the place of every line: key of its id, offset and length in its file, number of the file."""
        self._keys = array("q")
        self._offsets = array("q")
        self._lengths = array("I")
        self._numbers = array("H")
        for number, path in enumerate(self.paths):
            before = len(self._keys)
            self._index_file(number, path)
            if len(self._keys) == before:
                raise HypothesisError(
                    f"{path}: holds no hypotheses; run `audiorl predict` again, or leave it out"
                )

        # Sorted by key, a row's lines are found by bisection. Stable, so that they stay in the order of the files.
        order = np.argsort(np.frombuffer(self._keys, dtype=np.int64), kind="stable")

        def ordered(values: array[int]) -> array[int]:
            in_order = np.frombuffer(values, dtype=values.typecode)[order]
            return array(values.typecode, in_order.tobytes())

        self._keys = ordered(self._keys)
        self._offsets = ordered(self._offsets)
        self._lengths = ordered(self._lengths)
        self._numbers = ordered(self._numbers)

    def _index_file(self, number: int, path: str) -> None:
        offset = 0
        with open_lines(path) as file:
            for count, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        self._keys.append(id_key(_id_of(line)))
                    except LineError as error:
                        raise error.at(f"{path}, line {count}") from error
                    self._offsets.append(offset)
                    self._lengths.append(len(line))
                    self._numbers.append(number)

                offset += len(line)

    def __len__(self) -> int:
        """Number of lines."""
        return len(self._keys)

    def __getstate__(self) -> dict[str, Any]:
        # Open files do not travel to another process; it opens its own.
        return self.__dict__ | {"_files": {}}

    def of(self, row: Utterance) -> tuple[Predicted, ...]:
        """The lines of a row, one per model, in the order of files and lines.

        Raises:
            HypothesisError: when the row has none, or two of one model; when it was another one when it was decoded;
                for a line that cannot be read.
        """
        key = id_key(row.id)
        found: dict[str, Predicted] = {}
        at = bisect_left(self._keys, key)
        while at < len(self._keys) and self._keys[at] == key:
            predicted = self._read(at)

            # Two ids may have one key.
            if predicted.id == row.id:
                self._check(row, predicted, at)
                if predicted.model in found:
                    raise HypothesisError(
                        f"{self._where(at)}: row {row.id!r} has a second line of model {predicted.model!r}; leave one "
                        "of the files out, or predict under another name of the model"
                    )
                found[predicted.model] = predicted
            at += 1

        if not found:
            raise HypothesisError(
                f"{', '.join(self.paths)}: no hypotheses of row {row.id!r}; run `audiorl predict` on this manifest"
            )
        return tuple(found.values())

    def _read(self, at: int) -> Predicted:
        number = self._numbers[at]
        if number not in self._files:
            self._files[number] = open_lines(self.paths[number])

        # Forked workers share the position in an open file, so none of them may move it.
        file = self._files[number]
        line = os.pread(file.fileno(), self._lengths[at], self._offsets[at])
        try:
            return parse_line(line)
        except LineError as error:
            raise error.at(self._where(at)) from error

    def _where(self, at: int) -> str:
        """ "file, line 3"; counts lines, so it is for errors only."""
        path = self.paths[self._numbers[at]]
        left = self._offsets[at]
        number = 1
        with open_lines(path) as file:
            while left > 0 and (block := file.read(min(left, 2**20))):
                number += block.count(b"\n")
                left -= len(block)
        return f"{path}, line {number}"

    def _check(self, row: Utterance, predicted: Predicted, at: int) -> None:
        """Whether the row still is what it was when it was decoded."""
        for field, then, now in (
            ("reference", predicted.reference, row.text),
            ("fingerprint", predicted.fingerprint, row_fingerprint(row)),
        ):
            if then != now:
                raise HypothesisError(
                    f"{self._where(at)}, field `{field}`: row {row.id!r} had {then!r} when it was decoded and has "
                    f"{now!r} now; run `audiorl predict` on this manifest with `--overwrite true`"
                )
