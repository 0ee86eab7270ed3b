"""JSONL manifests in the NeMo convention: one row per line, checked completely before training begins."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import soundfile

from lightning_audiorl.data.nonspeech import PREFIX
from lightning_audiorl.data.rows import RowSource, check_index
from lightning_audiorl.types import Segment, Utterance

_log = logging.getLogger(__name__)
_MISSING = object()
_KNOWN = ("id", "audio_filepath", "text", "duration", "offset", "lang", "speaker", "keywords", "segments")


class ManifestError(ValueError):
    """A manifest row that cannot be used: names file, line and field, and says how to mend it.

    Args:
        where: "file, line 3".
        field: the field at fault.
        problem: what was found and how to mend it.
        reason: short name that skipped rows are counted by.
    """

    def __init__(self, where: str, field: str, problem: str, reason: str) -> None:
        super().__init__(f"{where}, field `{field}`: {problem}")
        self.field, self.reason = field, reason


@dataclass(frozen=True)
class _Line:
    """One parsed line, with what its error messages need."""

    where: str
    row: dict[str, Any]
    folder: Path

    def error(self, field: str, problem: str, reason: str) -> ManifestError:
        return ManifestError(self.where, field, problem, reason)

    def text(self, field: str, default: Any = _MISSING) -> str:
        value = self.row.get(field, default)
        if value is _MISSING:
            raise self.error(field, "is missing; every row needs it", f"missing {field}")
        if not isinstance(value, str):
            raise self.error(field, f"expected a string, got {_show(value)}; put it in quotes", f"type of {field}")
        return value

    def seconds(self, field: str, default: float | None) -> float | None:
        """A number of seconds, 0 or more; ``default`` where the row has none."""
        value = self.row.get(field)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(field, f"expected a number of seconds, got {_show(value)}", f"type of {field}")
        if not math.isfinite(value) or value < 0:
            raise self.error(field, f"expected 0 seconds or more, got {value}", f"negative {field}")
        return float(value)


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def read_manifest(
    path: str | Path,
    *,
    allow_empty_text: bool = False,
    check_files: bool = True,
    on_bad_row: Literal["error", "skip"] = "error",
    skipped: Counter[str] | None = None,
) -> list[Utterance]:
    """Every row of a JSONL manifest; blank lines are passed over.

    A row: ``{"audio_filepath": "a.wav", "text": "hello", "duration": 1.5}``, optionally ``offset``, ``lang``,
    ``speaker``, ``keywords`` (a list of strings) and ``id`` (else ``<manifest stem>:<line number>``). Other fields go
    to ``Utterance.extra``. Relative paths are taken from the manifest's folder; ``synthetic:`` addresses are kept.
    Where ``duration`` is missing the file's header is read. Instead of ``audio_filepath`` a row may have
    ``segments``, a list of ``{"audio_filepath", "duration", "offset", "gap"}``, joined in order.

    Args:
        path: the manifest.
        allow_empty_text: take rows without words (non-speech).
        check_files: look at once whether each file exists.
        on_bad_row: error stops at the first bad row; skip leaves it out, counts and logs it.
        skipped: filled with the number of skipped rows by reason.

    Raises:
        ManifestError: naming file, line and field; also if no row is left.
        FileNotFoundError: no such manifest.
    """
    path = Path(path).expanduser().absolute()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such manifest")
    skipped = Counter() if skipped is None else skipped
    rows: list[Utterance] = []
    line_of_id: dict[str, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            parsed = _parse(line, f"{path}, line {number}", path.parent)
            row = _utterance(parsed, f"{path.stem}:{number}", allow_empty_text, check_files)
            if row.id in line_of_id:
                problem = f"{row.id!r} is already used in line {line_of_id[row.id]}; ids must be unique"
                raise parsed.error("id", problem, "duplicate id")
        except ManifestError as error:
            if on_bad_row == "error":
                raise
            skipped[error.reason] += 1
            _log.debug("skipped: %s", error)
            continue
        line_of_id[row.id] = number
        rows.append(row)
    if skipped:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in skipped.most_common())
        _log.warning("%s: skipped %d of %d rows (%s)", path, skipped.total(), skipped.total() + len(rows), reasons)
    if not rows:
        raise ManifestError(str(path), "audio_filepath", "the manifest has no usable row", "empty manifest")
    return rows


def _parse(line: bytes, where: str, folder: Path) -> _Line:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        problem = f"is not JSON in UTF-8 ({error}); write one object per line"
        raise ManifestError(where, "(whole line)", problem, "bad JSON") from error
    if not isinstance(row, dict):
        problem = f"expected an object {{...}}, got {_show(row)}"
        raise ManifestError(where, "(whole line)", problem, "bad JSON")
    return _Line(where, row, folder)


def _utterance(line: _Line, default_id: str, allow_empty_text: bool, check_files: bool) -> Utterance:
    text = line.text("text")
    if not text.strip() and not allow_empty_text:
        problem = "is empty; write what is spoken, or read with allow_empty_text for non-speech"
        raise line.error("text", problem, "empty text")
    if "segments" in line.row:
        segments = _segments(line, check_files)
    else:
        segments = (_segment(line, check_files),)
    duration_s = line.seconds("duration", None) if "segments" in line.row else segments[0].duration_s
    if duration_s is None:
        duration_s = sum(segment.gap_s + (segment.duration_s or 0.0) for segment in segments)
    return Utterance(
        id=line.text("id", default_id),
        segments=segments,
        text=text,
        duration_s=duration_s,
        lang=line.text("lang", "en"),
        speaker=line.text("speaker", ""),
        keywords=_keywords(line),
        extra={key: value for key, value in line.row.items() if key not in _KNOWN},
    )


def _segments(line: _Line, check_files: bool) -> tuple[Segment, ...]:
    listed = line.row["segments"]
    if not isinstance(listed, list) or not listed or not all(isinstance(item, dict) for item in listed):
        raise line.error("segments", f"expected a list of objects, got {_show(listed)}", "type of segments")
    return tuple(
        _segment(_Line(f"{line.where}, segment {number}", item, line.folder), check_files)
        for number, item in enumerate(listed)
    )


def _segment(line: _Line, check_files: bool) -> Segment:
    """The audio named by ``audio_filepath``, with its duration read from the header where the row has none."""
    name = line.text("audio_filepath")
    offset_s = line.seconds("offset", 0.0) or 0.0
    duration_s = line.seconds("duration", None)
    if duration_s == 0:
        raise line.error("duration", "is 0; remove the row or correct it", "zero duration")
    gap_s = line.seconds("gap", 0.0) or 0.0
    if name.startswith(PREFIX):
        if duration_s is None:
            raise line.error("duration", "is missing; a synthetic address has no length of its own", "missing duration")
        return Segment(name, duration_s, offset_s, gap_s)
    path = line.folder / Path(name).expanduser()
    if (check_files or duration_s is None) and not path.is_file():
        problem = f"no such file: {path}; relative paths are taken from the manifest's folder"
        raise line.error("audio_filepath", problem, "missing file")
    if duration_s is None:
        duration_s = _header_seconds(line, path) - offset_s
        if duration_s <= 0:
            problem = f"{offset_s} s lies behind the file's end, or the file holds no samples"
            raise line.error("offset" if offset_s else "audio_filepath", problem, "zero-length audio")
    return Segment(str(path), duration_s, offset_s, gap_s)


def _header_seconds(line: _Line, path: Path) -> float:
    try:
        info = soundfile.info(str(path))
    except soundfile.LibsndfileError as error:
        problem = f"{path} is not readable as audio ({error}); convert it to wav or flac"
        raise line.error("audio_filepath", problem, "unreadable audio") from error
    return float(info.frames) / float(info.samplerate)


def _keywords(line: _Line) -> tuple[str, ...]:
    words = line.row.get("keywords", [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise line.error("keywords", f"expected a list of strings, got {_show(words)}", "type of keywords")
    return tuple(words)


def write_manifest(rows: Iterable[Utterance], path: str | Path) -> None:
    """Write rows as a manifest that `read_manifest` reads back the same; paths are written as they are."""
    with Path(path).open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(_to_json(row), ensure_ascii=False) + "\n")


def _to_json(row: Utterance) -> dict[str, Any]:
    parts = [
        {"audio_filepath": s.audio_filepath, "duration": s.duration_s, "offset": s.offset_s, "gap": s.gap_s}
        for s in row.segments
    ]
    parts = [{key: value for key, value in part.items() if value is not None and value != 0} for part in parts]
    plain = len(parts) == 1 and "gap" not in parts[0]
    audio = parts[0] if plain else {"segments": parts}
    names = {"lang": row.lang, "speaker": row.speaker, "keywords": list(row.keywords)}
    return {
        "id": row.id,
        **audio,
        "text": row.text,
        "duration": row.duration_s,
        **{key: value for key, value in names.items() if value},
        **row.extra,
    }


class ManifestRows(RowSource):
    """The rows of a manifest as a source; the arguments are those of `read_manifest`.

    Args:
        path: the manifest.
        allow_empty_text: take rows without words (non-speech).
        check_files: look at once whether each file exists.
        on_bad_row: error, or skip and count in ``skipped``.
    """

    def __init__(
        self,
        path: str,
        allow_empty_text: bool = False,
        check_files: bool = True,
        on_bad_row: Literal["error", "skip"] = "error",
    ) -> None:
        self.path = path
        self.skipped: Counter[str] = Counter()
        self._rows = read_manifest(
            path,
            allow_empty_text=allow_empty_text,
            check_files=check_files,
            on_bad_row=on_bad_row,
            skipped=self.skipped,
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        return self._rows[check_index(index, len(self._rows), self)]
