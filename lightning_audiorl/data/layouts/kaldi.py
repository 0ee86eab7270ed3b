"""A Kaldi data directory: ``wav.scp``, ``text``, and where they are there ``segments``, ``utt2spk``, ``utt2lang``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_audiorl.data.layouts.base import (
    Found,
    Layout,
    file_named,
    refused,
    sound_of,
    text_lines,
)
from lightning_audiorl.data.manifest.schema import ManifestError

#: ``foo.ark:1234``: a place in an archive.
_IN_ARCHIVE = re.compile(r"\.ark:\d+$")
_OPTIONAL = ("segments", "utt2spk", "utt2lang")


@dataclass
class Kaldi(Layout):
    """A Kaldi data directory. Rows come in the order of ``text``.

    A recording that is made by a command (``sox ... |``) or lies in an archive is refused, since neither can be read
    from the middle on. Relative paths of ``wav.scp`` are taken from where the command is called, as Kaldi does, or else
    from the directory.

    Args:
        source: the directory, such as ``data/train``.
    """

    source: str

    def inputs(self) -> list[Path]:
        needed = [
            self.need(self.folder / "wav.scp", "one recording per line"),
            self.need(self.folder / "text", "one utterance per line"),
        ]
        optional = [self.folder / name for name in _OPTIONAL]
        return needed + [path for path in optional if path.is_file()]

    def rows(self) -> Iterator[Found | ManifestError]:
        self.inputs()
        recordings = self._table("wav.scp")
        segments = self._table("segments")
        speakers = self._table("utt2spk")
        languages = self._table("utt2lang")
        has_segments = (self.folder / "segments").is_file()

        for where, line in text_lines(self.folder / "text", self.folder):
            if isinstance(line, ManifestError):
                yield line
                continue

            name, _, text = line.strip().partition(" ")
            try:
                audio = (
                    self._cut(name, where, segments, recordings)
                    if has_segments
                    else {"audio_filepath": self._file(name, where, recordings)}
                )
            except ManifestError as error:
                yield error
                continue

            fields = {"id": name, **audio, "text": text.strip()}
            if name in speakers:
                fields["speaker"] = speakers[name][1]
            if name in languages:
                fields["lang"] = languages[name][1]
            yield Found(where, fields)

    def _table(self, name: str) -> dict[str, tuple[str, str]]:
        """Place and rest of each line by its first word; an optional table that is not there has none."""
        path = self.folder / name
        if not path.is_file():
            return {}
        table: dict[str, tuple[str, str]] = {}
        for where, line in text_lines(path, self.folder):
            if isinstance(line, ManifestError):
                raise line
            first, *rest = line.strip().split(maxsplit=1)
            if first in table:
                problem = f"{first!r} stands in {table[first][0]} already; leave one of the two"
                raise ManifestError(where, first, problem, "duplicate id")
            table[first] = (where, rest[0].strip() if rest else "")
        return table

    def _file(self, name: str, where: str, recordings: dict[str, tuple[str, str]]) -> str:
        """The file of a recording."""
        if name not in recordings:
            problem = f"{name!r} has no line in wav.scp; add one, or remove the utterance"
            raise refused(where, "audio_filepath", problem, "no recording")

        place, given = recordings[name]
        if given.endswith("|"):
            problem = (
                f"{given!r} is a command, which cannot be read from the middle on; run it once "
                f"(`{given.rstrip(' |')} > {name}.wav`) and name the file"
            )
            raise refused(place, "wav.scp", problem, "pipe")
        if _IN_ARCHIVE.search(given):
            problem = f"{given!r} lies in an archive; write files (`wav-copy scp:wav.scp ...`) and name them"
            raise refused(place, "wav.scp", problem, "archive")
        if not given:
            raise refused(place, "wav.scp", f"{name!r} names no file", "missing file")
        return file_named(given, self.folder)

    def _cut(
        self,
        name: str,
        where: str,
        segments: dict[str, tuple[str, str]],
        recordings: dict[str, tuple[str, str]],
    ) -> dict[str, str | float]:
        """The stretch of a recording that an utterance is."""
        if name not in segments:
            problem = f"{name!r} has no line in segments; add one, or remove the utterance"
            raise refused(where, "segments", problem, "no segment")
        place, rest = segments[name]
        cells = rest.split()
        times = [_seconds(cell) for cell in cells[1:]]
        # A fifth column, a channel, is seldom there, and would be of a file with several.
        if len(cells) != 3 or not all(map(math.isfinite, times)):
            problem = (
                f"expected <utterance> <recording> <start> <end> in seconds, got {name} {rest}"
            )
            raise refused(place, "segments", problem, "bad segment")

        start_s, end_s = times
        path = self._file(cells[0], place, recordings)
        # So is the end of the recording written.
        if end_s == -1:
            end_s = sound_of(path, place).length_s
        if start_s < 0 or end_s <= start_s:
            problem = f"{name} goes from {start_s:g} to {end_s:g} s; correct the times"
            raise refused(place, "segments", problem, "bad segment")
        # Differences of decimals have digits of their own: a microsecond is less than a sample.
        return {"audio_filepath": path, "offset": start_s, "duration": round(end_s - start_s, 6)}


def _seconds(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
