"""What a layout is: it finds the rows of a data set that was written for another tool, and says what it refuses."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from lightning_audiorl.data.manifest.line_files import BadLines
from lightning_audiorl.data.manifest.schema import PREFIX, ManifestError, parse_row
from lightning_audiorl.data.manifest.words import DEFAULT_LANG
from lightning_audiorl.data.sound import AudioError, SoundReader
from lightning_audiorl.languages import check_language
from lightning_audiorl.types import Segment, Utterance

#: A row may claim this much more audio than its file has; `read_audio` allows it, for rounded durations.
OVERRUN_S = 0.2


@dataclass(frozen=True)
class Found:
    """One row as a layout finds it.

    Args:
        where: "metadata.csv, line 3": its place in the data set, for messages.
        fields: those of a manifest line, with an absolute ``audio_filepath`` and an ``id``.
        sure: whether the audio's length was compared with what the row claims.
    """

    where: str
    fields: dict[str, Any]
    sure: bool = False


class Layout(ABC):
    """A data set in the layout of another tool. Subclasses are dataclasses; their fields are the command's options.

    ``source`` is the folder or file. Each kind is one module, named in `layouts.LAYOUTS`.
    """

    source: str

    @abstractmethod
    def rows(self) -> Iterator[Found | ManifestError]:
        """The rows in the data set's own order, and an error in the place of each that cannot be used.

        Raises:
            FileNotFoundError: no such data set.
            ManifestError: the data set as a whole is not of this layout; says what is missing.
        """

    @abstractmethod
    def inputs(self) -> list[Path]:
        """Files whose change makes other rows; without the audio itself."""

    @property
    def folder(self) -> Path:
        """The absolute path of ``source``.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        folder = Path(self.source).expanduser().absolute()
        if not folder.is_dir():
            problem = "is a file; give the folder" if folder.is_file() else "no such folder"
            raise FileNotFoundError(f"{folder}: {problem}")
        return folder

    def need(self, path: Path, what: str) -> Path:
        """``path`` itself.

        Raises:
            FileNotFoundError: it is not there; says what it would be.
        """
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: no such file ({what}); is {self.source} a data set of this kind?"
            )
        return path


def options_of(layout: type[Layout]) -> list[str]:
    """The names of a layout's options.

    Example:
        >>> from lightning_audiorl.data.layouts import LAYOUTS
        >>> options_of(LAYOUTS["ljspeech"])
        ['text']
    """
    # Layouts are dataclasses, which the abstract one cannot say.
    named = [field.name for field in fields(layout)]  # type: ignore[arg-type]
    return [name for name in named if name != "source"]


def refused(where: str, field: str, problem: str, reason: str) -> ManifestError:
    """A row that a layout cannot give: ``reason`` is the short name that such rows are counted by."""
    return ManifestError(where, field, problem, reason)


def shown(path: Path, root: Path) -> str:
    """A path as messages have it: within the data set, where it lies in it."""
    try:
        return str(path.relative_to(root))
    except ValueError:
        return str(path)


def text_lines(path: Path, root: Path) -> Iterator[tuple[str, str | ManifestError]]:
    """The lines of a file that are not blank, each with "file, line 3"; an error for one that is not in UTF-8.

    Lines end where the file ends them: a carriage return, or a line separator of Unicode, may stand in a text.
    """
    name = shown(path, root)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{name}, line {number}"
            try:
                # A byte order mark stands before the first line of files of some editors.
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                problem = f"is not in UTF-8 ({error}); write the file in UTF-8"
                yield where, refused(where, "(whole line)", problem, "not UTF-8")
                continue
            text = text.rstrip("\r\n")
            if text.strip():
                yield where, text


def file_named(name: str, folder: Path) -> str:
    """The absolute path of a file that a list names: as the tool takes it, from where it is called; else from the list.

    Example:
        >>> file_named("/clips/a.wav", Path("/data"))
        '/clips/a.wav'
    """
    here = Path(name).expanduser().absolute()
    beside = folder / name
    if not here.exists() and beside.exists():
        return str(beside)
    return str(here)


@dataclass
class Checked:
    """The rows of a layout, checked as those of a manifest are.

    Args:
        layout: finds them.
        lang: of rows that name none; None is "en".
        allow_empty_text: take rows without words (non-speech).
        on_bad_row: error stops at the first bad row; skip leaves it out, counts and logs it.
        checks: say what else is wrong with a row, or None.

    Attributes:
        skipped: number of skipped rows by reason.
    """

    layout: Layout
    lang: str | None = None
    allow_empty_text: bool = False
    on_bad_row: Literal["error", "skip"] = "error"
    checks: Sequence[Callable[[Utterance], ManifestError | None]] = ()

    def __post_init__(self) -> None:
        check_language(self.lang or DEFAULT_LANG)
        self.skipped: Counter[str] = Counter()

    def rows(self) -> Iterator[Utterance]:
        """The rows that can be used.

        Raises:
            ManifestError: the first bad row, naming file, line or member, and field; or no row is left.
        """
        bad = BadLines(self.layout.source, self.on_bad_row, self.skipped)
        seen: set[bytes] = set()
        num_rows = 0
        for found in self.layout.rows():
            try:
                if isinstance(found, ManifestError):
                    raise found
                row = self._row(found)
                self._note(row.id, found.where, seen)
                self._check(row)
            except ManifestError as error:
                bad.add(error)
                continue

            num_rows += 1
            yield row
        bad.report(num_rows, "audio_filepath")

    def _check(self, row: Utterance) -> None:
        """ManifestError where one of the checks has something to say."""
        for check in self.checks:
            problem = check(row)
            if problem is not None:
                raise problem

    def _note(self, row_id: str, where: str, seen: set[bytes]) -> None:
        """Add an id to those seen; ManifestError where it is among them."""
        # Eight bytes of each: the ids of a hundred million rows would fill the memory.
        key = blake2b(row_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        if key in seen:
            first = "another row"
            if self.on_bad_row == "error":
                others = (found for found in self.layout.rows() if isinstance(found, Found))
                first = next((o.where for o in others if o.fields.get("id") == row_id), first)
            problem = f"{row_id!r} is already used in {first}; ids must be unique"
            raise refused(where, "id", problem, "duplicate id")
        seen.add(key)

    def _row(self, found: Found) -> Utterance:
        row = parse_row(
            json.dumps(found.fields).encode(),
            where=found.where,
            folder=os.getcwd(),
            default_id=found.where,
            allow_empty_text=self.allow_empty_text,
            check_files=True,
            may_skip=self.on_bad_row == "skip",
            lang=self.lang or DEFAULT_LANG,
        )
        # Without a duration of its own the row has that of the file.
        if "duration" in found.fields and not found.sure:
            for segment in row.segments:
                check_claim(segment, found.where)
        return row


def check_claim(segment: Segment, where: str, tolerance_s: float = OVERRUN_S) -> None:
    """Refuse a stretch that goes on behind the end of its file.

    Args:
        segment: the stretch.
        where: of the row, for the error.
        tolerance_s: what it may go on behind it.

    Raises:
        ManifestError: naming both lengths, or what is wrong with the file.
    """
    if segment.audio_filepath.startswith(PREFIX):
        return
    length_s = sound_of(segment.audio_filepath, where).length_s
    end_s = segment.offset_s + (segment.duration_s or 0.0)
    if segment.offset_s >= length_s or end_s > length_s + tolerance_s:
        problem = (
            f"{segment.audio_filepath} ends at {length_s:.3f} s, and the row claims audio from {segment.offset_s:.3f} "
            f"to {end_s:.3f} s; correct the times, or restore the file"
        )
        raise refused(where, "duration", problem, "longer than its file")


@dataclass(frozen=True)
class Sound:
    """What a file truly holds, whatever a list says of it."""

    rate_hz: int
    channels: int
    num_frames: int

    @property
    def length_s(self) -> float:
        """Its length in seconds."""
        return self.num_frames / self.rate_hz


def sound_of(path: str, where: str) -> Sound:
    """Rate, channels and length of a file, or of a stretch of one.

    Raises:
        ManifestError: it cannot be read; ``where`` names the row.
    """
    try:
        return _sound_of(path)
    except AudioError as error:
        raise refused(where, "audio_filepath", str(error), "unreadable audio") from error


# A recording has many rows, one after another.
@lru_cache(maxsize=256)
def _sound_of(path: str) -> Sound:
    with SoundReader(path) as sound:
        return Sound(sound.rate_hz, sound.channels, sound.num_frames)
