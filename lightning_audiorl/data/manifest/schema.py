"""One line of a manifest: how a row is read from JSON, checked field by field, and written again."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lightning_audiorl.data.manifest.field_types import wrong_type
from lightning_audiorl.data.manifest.json_lines import JsonLineError, read_object, show
from lightning_audiorl.data.manifest.spelling import meant_as, misspelt
from lightning_audiorl.data.manifest.words import DEFAULT_LANG, no_language, wordless
from lightning_audiorl.data.sound import AudioError, length_s
from lightning_audiorl.data.sound.places import INSIDE, file_of
from lightning_audiorl.types import Origin, Segment, Utterance

_log = logging.getLogger(__name__)

# Begins the address of audio that is made, not read: ``synthetic:silence``.
PREFIX = "synthetic:"

_MISSING = object()
#: Fields with a place in `Utterance`; all others go to ``extra``.
KNOWN = frozenset(
    (
        "id",
        "audio_filepath",
        "text",
        "duration",
        "offset",
        "lang",
        "speaker",
        "keywords",
        "effects",
        "segments",
        "spoken_text",
    )
)
#: Fields that a row need not have, where another name for one would pass without a word.
_OPTIONAL = ("lang", "duration", "offset", "keywords", "effects", "speaker", "id", "spoken_text")
_SELDOM = frozenset(("offset", "keywords", "effects", "segments", "spoken_text", "gap", "hotwords"))
_STRINGS = {str}
_OPTIONAL_IN_SEGMENT = ("duration", "offset", "gap")
#: How other formats name what is `offset` here, in a row of a whole recording.
_STARTS = frozenset(
    ("start", "start_time", "start_s", "start_sec", "begin", "begin_time", "segment_start")
)
#: Nothing in a row lasts longer: it is no number of seconds, or audio that no memory holds.
MOST_S = 86_400.0
#: Where a recording of several days may be cut.
_MOST_OFFSET_S = 1e7


class ManifestError(ValueError):
    """A manifest row that cannot be used: names file, line and field, and says how to mend it.

    Args:
        where: "file, line 3".
        field: the field at fault.
        problem: what was found and how to mend it.
        reason: short name that skipped rows are counted by.

    Example:
        >>> str(ManifestError("a.jsonl, line 3", "text", "is missing; every row needs it", "missing text"))
        'a.jsonl, line 3, field `text`: is missing; every row needs it'
    """

    def __init__(self, where: str, field: str, problem: str, reason: str) -> None:
        super().__init__(f"{where}, field `{field}`: {problem}")
        self.where = where
        self.field = field
        self.problem = problem
        self.reason = reason


@dataclass(slots=True)
class _Line:
    """One parsed line, with what its error messages need."""

    where: str
    row: dict[str, Any]
    folder: str
    # Of its fields, such as "segments[0].".
    path: str = ""

    def error(self, field: str, problem: str, reason: str) -> ManifestError:
        return ManifestError(self.where, f"{self.path}{field}", problem, reason)

    def text(self, field: str, default: Any = _MISSING) -> str:
        value = self.row.get(field, default)
        if value is _MISSING:
            problem = "is missing; every row needs it"
            name = meant_as(field, self.row)
            if name:
                problem += f"; did you mean it by `{name}`?"
            raise self.error(field, problem, f"missing {field}")

        # Programs in C, as readers of files and synthesisers are, take it for the end.
        if "\0" in value:
            problem = "holds a NUL character; remove it"
            raise self.error(field, problem, f"NUL in {field}")
        return str(value)

    def strings(self, field: str) -> tuple[str, ...]:
        return tuple(self.row.get(field, []))

    def seconds(self, field: str, default: float | None, most_s: float = MOST_S) -> float | None:
        """A number of seconds from 0 to ``most_s``; ``default`` where the row has none."""
        value = self.row.get(field)
        if value is None:
            return default

        # Compared before it is made a float, which holds no whole number of 400 digits. Of NaN neither is true.
        shown = f"{value}"[:20]
        if not value >= 0:
            raise self.error(field, f"expected 0 seconds or more, got {shown}", f"negative {field}")
        if value > most_s:
            problem = f"expected 0 seconds or more, at most {most_s:,.0f}, got {shown}; is it in milliseconds?"
            raise self.error(field, problem, f"too long {field}")
        return float(value)


def parse_row(
    line: bytes,
    where: str,
    folder: str,
    default_id: str,
    allow_empty_text: bool,
    check_files: bool,
    allow_no_audio: bool = False,
    may_skip: bool = False,
    lang: str = DEFAULT_LANG,
) -> Utterance:
    """The row that a line of JSON describes; the fields are those of `read_manifest`.

    Args:
        line: one line of the manifest.
        where: "file, line 3", for errors.
        folder: what relative paths are taken from.
        default_id: of a row that names none.
        allow_empty_text: take a row without words (non-speech).
        check_files: look whether its files exist.
        allow_no_audio: take a row whose list ``segments`` is empty (text to be spoken without a speaker prompt).
        may_skip: whether the row may be left out later, where its audio turns out to be bad.
        lang: of a row that names none.

    Raises:
        ManifestError: naming file, line and field.

    Example:
        >>> line = b'{"audio_filepath": "a.wav", "text": "good morning", "duration": 1.5, "room": "hall"}'
        >>> row = parse_row(line, "m.jsonl, line 1", "/clips", "m:1", allow_empty_text=False, check_files=False)
        >>> row.id, row.text, row.duration_s, row.extra
        ('m:1', 'good morning', 1.5, {'room': 'hall'})
        >>> row.segments[0].audio_filepath
        '/clips/a.wav'
    """
    values = _Line(where, parse_object(line, where), folder)
    origin = Origin(where, may_skip)
    return _utterance(
        values, default_id, allow_empty_text, check_files, allow_no_audio, origin, lang
    )


def parse_object(line: bytes, where: str) -> dict[str, Any]:
    """The fields of a line as JSON has them.

    Raises:
        ManifestError: the line is no object; ``where`` is "file, line 3".

    Example:
        >>> parse_object(b'{"text": "hello"}', "m.jsonl, line 1")
        {'text': 'hello'}
    """
    try:
        return read_object(line)
    except JsonLineError as error:
        raise ManifestError(where, error.field, error.problem, "bad JSON") from error


def _utterance(
    line: _Line,
    default_id: str,
    allow_empty_text: bool,
    check_files: bool,
    allow_no_audio: bool,
    origin: Origin,
    lang: str,
) -> Utterance:
    common = _common(line, default_id, allow_empty_text, check_files, origin, lang)
    if common is not None:
        return common
    wrong = wrong_type(line.row)
    if wrong is not None:
        path, problem = wrong
        raise line.error(path, problem, f"type of {path.partition('[')[0]}")

    text = line.text("text")
    problem = wordless(text, allow_empty_text)
    if problem:
        raise line.error("text", problem, "text without words" if text.strip() else "empty text")

    segments, duration_s = _audio(line, check_files, allow_no_audio)
    check_names(line.row, line.where, _OPTIONAL)
    return Utterance(
        id=line.text("id", default_id),
        segments=segments,
        text=text,
        duration_s=duration_s,
        lang=_lang(line, lang),
        speaker=line.text("speaker", ""),
        keywords=line.strings("keywords"),
        effects=line.strings("effects"),
        extra={key: value for key, value in line.row.items() if key not in KNOWN},
        spoken_text=_spoken_text(line),
        origin=origin,
    )


def _common(
    line: _Line,
    default_id: str,
    allow_empty_text: bool,
    check_files: bool,
    origin: Origin,
    lang: str,
) -> Utterance | None:
    """A row of text and one whole file with its duration, where all is well; None of others, for `_utterance`."""
    fields = line.row
    if not fields.keys().isdisjoint(_SELDOM):
        return None
    strings: tuple[Any, ...] = (
        fields.get("audio_filepath"),
        fields.get("text"),
        fields.get("id", default_id),
        fields.get("speaker", ""),
        fields.get("lang", ""),
    )
    seconds = fields.get("duration")
    if set(map(type, strings)) != _STRINGS or type(seconds) is not float:
        return None

    name, text, row_id, speaker, given = strings
    language = given or lang
    is_plain = name.strip() and name[0] != "~" and not name.startswith((PREFIX, INSIDE))
    if not is_plain or not 0 < seconds <= MOST_S or "\0" in "".join(strings):
        return None
    if wordless(text, allow_empty_text) or no_language(language):
        return None
    path = full_path(line.folder, name)
    if check_files and not os.path.isfile(path):
        return None

    check_names(fields, line.where, _OPTIONAL)
    return Utterance(
        id=row_id,
        segments=(Segment(path, seconds),),
        text=text,
        duration_s=seconds,
        lang=language,
        speaker=speaker,
        extra={key: value for key, value in fields.items() if key not in KNOWN},
        origin=origin,
    )


def _lang(line: _Line, default: str) -> str:
    """The row's language as it names it; ``default`` where it names none."""
    lang = line.text("lang", "") or default
    problem = no_language(lang)
    if problem:
        raise line.error("lang", problem, "unknown language")
    return lang


def _spoken_text(line: _Line) -> str | None:
    """What is to be heard, where the row says so beside its text."""
    if "spoken_text" not in line.row:
        return None
    spoken = line.text("spoken_text")
    problem = wordless(spoken)
    if problem:
        raise line.error("spoken_text", f"{problem}; or leave it out", "empty spoken_text")
    return spoken


def check_names(fields: dict[str, Any], where: str, optional: tuple[str, ...]) -> None:
    """Refuse a name that is none of ours where it seems to be meant as a field that is missing.

    Args:
        fields: of a line.
        where: "file, line 3", for errors.
        optional: fields that the line may have.

    Raises:
        ManifestError: naming both.
    """
    slip = misspelt(fields, optional)
    if slip is not None:
        name, meant = slip
        problem = f"is no field of ours; did you mean `{meant}`? Rename it, or remove it"
        raise ManifestError(where, name, problem, "misspelt field")

    # Of clips that are cut already, such a field says where they come from.
    if "offset" not in fields and not _STARTS.isdisjoint(fields):
        name = next(name for name in fields if name in _STARTS)
        if isinstance(fields[name], int | float) and fields[name] > 0:
            _warn_of_start(where.rpartition(", line ")[0], name)


@lru_cache(maxsize=1024)
def _warn_of_start(manifest: str, name: str) -> None:
    """Say once for a manifest that its rows begin where their files do."""
    _log.warning(
        "%s: `%s` is no field of ours, so audio is read from the beginning of its file; where that is a whole "
        "recording, give where the row begins as `offset`, and how long it lasts as `duration`",
        manifest,
        name,
    )


def _audio(
    line: _Line, check_files: bool, allow_no_audio: bool
) -> tuple[tuple[Segment, ...], float]:
    """The segments of a row and its duration in seconds."""
    if "segments" in line.row:
        segments = _segments(line, check_files, allow_no_audio)
        duration_s = line.seconds("duration", None)
        if duration_s == 0:
            raise line.error("duration", "is 0; remove the row or correct it", "zero duration")
    else:
        # The row's own duration is that of its one segment.
        segments = (_segment(line, check_files),)
        duration_s = segments[0].duration_s

    if duration_s is None:
        lengths_s = [segment.gap_s + (segment.duration_s or 0.0) for segment in segments]
        duration_s = sum(lengths_s)
    if duration_s > MOST_S:
        problem = (
            f"lasts {duration_s:,.0f} s, more than {MOST_S:,.0f}; cut it, or correct the numbers"
        )
        raise line.error("segments" if "segments" in line.row else "duration", problem, "too long")
    return segments, duration_s


def _segments(line: _Line, check_files: bool, allow_none: bool) -> tuple[Segment, ...]:
    """The audio that is listed in ``segments``."""
    listed = line.row["segments"]
    if listed == [] and allow_none:
        return ()

    if not listed:
        problem = f"expected a list of objects, got {show(listed)}"
        raise line.error("segments", problem, "type of segments")

    for field in ("audio_filepath", "offset"):
        if field in line.row:
            problem = "stands beside `segments`, whose entries have it; leave one of the two out"
            raise line.error(field, problem, "audio given twice")

    segments: list[Segment] = []
    for number, fields in enumerate(listed):
        item = _Line(line.where, fields, line.folder, f"segments[{number}].")
        segments.append(_segment(item, check_files))
        check_names(fields, f"{line.where}, segment {number}", _OPTIONAL_IN_SEGMENT)
    return tuple(segments)


def _segment(line: _Line, check_files: bool) -> Segment:
    """The audio named by ``audio_filepath``, with its duration read from the header where the row has none."""
    name = line.text("audio_filepath")
    offset_s = line.seconds("offset", 0.0, _MOST_OFFSET_S) or 0.0
    duration_s = line.seconds("duration", None)
    if duration_s == 0:
        raise line.error("duration", "is 0; remove the row or correct it", "zero duration")
    gap_s = line.seconds("gap", 0.0) or 0.0

    if name.startswith(PREFIX):
        if duration_s is None:
            problem = "is missing; a synthetic address has no length of its own"
            raise line.error("duration", problem, "missing duration")
        return Segment(name, duration_s, offset_s, gap_s)

    path = _path(line, name)
    # The header is needed for the duration, so a missing file is reported here even if files are not checked.
    file = file_of(path)
    if (check_files or duration_s is None) and not os.path.isfile(file):
        problem = f"no such file: {file}; relative paths are taken from the manifest's folder"
        if os.path.isdir(file):
            problem = f"{file} is a folder; name a file in it"
        raise line.error("audio_filepath", problem, "missing file")

    if duration_s is None:
        duration_s = _header_seconds(line, path) - offset_s
        if duration_s <= 0:
            field = "offset" if offset_s else "audio_filepath"
            problem = f"{path} holds no samples; remove the row"
            if offset_s:
                problem = f"{offset_s} s lies behind the file's end; correct it ({path})"
            raise line.error(field, problem, "zero-length audio")
    return Segment(path, duration_s, offset_s, gap_s)


def _path(line: _Line, name: str) -> str:
    """The file that a line names."""
    if not name.strip():
        raise line.error("audio_filepath", "is empty; name a file", "missing file")
    try:
        if not name.startswith(INSIDE):
            return full_path(line.folder, name)
        file = file_of(name)
        return name.replace(file, full_path(line.folder, file), 1)
    except ValueError as error:
        raise line.error("audio_filepath", str(error), "bad address") from error
    except RuntimeError as error:
        problem = f"{name}: there is no such user ({error}); write the path out"
        raise line.error("audio_filepath", problem, "missing file") from error


def full_path(folder: str, name: str) -> str:
    """``folder / name`` as pathlib spells it.

    Example:
        >>> full_path("/data", "clips/a.wav"), full_path("/data", "./a.wav"), full_path("/data", "/else/a.wav")
        ('/data/clips/a.wav', '/data/a.wav', '/else/a.wav')
    """
    # Manifests have millions of plain names, and pathlib is slow: only what it would spell otherwise goes through it.
    odd_end = not name or name[0] in "~." or name[-1] == "/"
    odd_inside = "//" in name or "/." in name
    if odd_end or odd_inside or folder == "/":
        return str(Path(folder) / Path(name).expanduser())

    is_absolute = name[0] == "/"
    return name if is_absolute else f"{folder}/{name}"


def _header_seconds(line: _Line, path: str) -> float:
    try:
        return length_s(path)
    except AudioError as error:
        raise line.error("audio_filepath", str(error), "unreadable audio") from error


def segment_to_json(segment: Segment) -> dict[str, Any]:
    """One entry of the field ``segments``, without what is None or 0.

    Example:
        >>> segment_to_json(Segment("/clips/a.wav", duration_s=1.5, gap_s=0.2))
        {'audio_filepath': '/clips/a.wav', 'duration': 1.5, 'gap': 0.2}
    """
    fields = {
        "audio_filepath": segment.audio_filepath,
        "duration": segment.duration_s,
        "offset": segment.offset_s,
        "gap": segment.gap_s,
    }
    return {key: value for key, value in fields.items() if value is not None and value != 0}


def to_json(row: Utterance) -> dict[str, Any]:
    """The object that `parse_row` reads back as the same row.

    Example:
        >>> to_json(Utterance(id="a", segments=(Segment("/clips/a.wav", 1.5),), text="hello", duration_s=1.5))
        {'id': 'a', 'audio_filepath': '/clips/a.wav', 'duration': 1.5, 'text': 'hello', 'lang': 'en'}
    """
    segments = [segment_to_json(segment) for segment in row.segments]
    # In speech synthesis a row's duration is that of the speech to be made, and its audio is a speaker prompt.
    audio: dict[str, Any] = {"segments": segments}
    if len(segments) == 1:
        own_duration = segments[0].get("duration") in (None, row.duration_s)
        if own_duration and "gap" not in segments[0]:
            audio = segments[0]

    optional = {
        "lang": row.lang,
        "speaker": row.speaker,
        "keywords": list(row.keywords),
        "effects": list(row.effects),
        "spoken_text": row.spoken_text,
    }
    return {
        "id": row.id,
        **audio,
        "text": row.text,
        "duration": row.duration_s,
        **{key: value for key, value in optional.items() if value},
        **row.extra,
    }
