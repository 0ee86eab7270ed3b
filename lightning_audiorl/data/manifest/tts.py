"""A manifest of speech synthesis: texts with the very speaker prompt, and recording, that each is to have."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lightning_audiorl.data.manifest.json_lines import show
from lightning_audiorl.data.manifest.line_files import BadLines, manifest_path, numbered_lines
from lightning_audiorl.data.manifest.schema import (
    ManifestError,
    check_names,
    parse_object,
    parse_row,
)
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.data.manifest.spelling import meant_as
from lightning_audiorl.data.manifest.targets import (
    PROMPT_TEXT,
    TARGET,
    length_s,
    target_field,
    target_segments,
)
from lightning_audiorl.data.manifest.words import DEFAULT_LANG
from lightning_audiorl.languages import check_language
from lightning_audiorl.types import Utterance

#: Beyond these, a text is not that of its recording.
MOST_LETTERS_PER_S = 40.0
MOST_SYLLABLES_PER_S = 15.0
#: Words of a fifth of a second are cut out of recordings, and cuts are rounded.
_FORGIVEN_S = 0.25
#: Characters that each are a syllable: Han, kana, Hangul.
_SYLLABLES = re.compile(
    "[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff]"
)
#: Fields that a row need not have, where another name for one would pass without a word.
_OPTIONAL = ("text", "prompt_text", "prompt_duration", "target", "lang", "duration", "offset")


class SpeechManifest(RowSource):
    """Rows of a JSONL file, read when a row is first asked for.

    A line: ``{"text": "hello", "audio_filepath": "ann.wav", "prompt_text": "good morning", "speaker": "ann"}``. The
    audio is the speaker prompt (``offset`` and ``prompt_duration`` cut it; ``segments`` join it; without any there is
    no prompt). ``target`` is a recording of the text for supervised training: ``{"audio_filepath", "duration",
    "offset"}`` or a list of such. ``duration`` is the expected length of the speech to be made; without it that of the
    target, else that of the text at the prompt's pace. Further fields as in `read_manifest`. Relative paths are taken
    from the manifest's folder. ``spoken_text`` is what is to be heard, where ``text`` spells it otherwise (phonemes).

    A row is refused where the text of its prompt, or of its target, has more than 40 letters, or 15 Chinese characters,
    kana or Hangul syllables, for each second of the recording (and a quarter of a second more): it is the text of
    another one.

    Args:
        path: the manifest.
        on_bad_row: error stops at the first bad row; skip leaves it out, counts it in ``skipped`` and says so, and does
            so with audio that turns out to be bad when it is read.
        lang: of rows that name none; None is "en".

    Attributes:
        skipped: number of skipped lines by reason, once the first row was asked for.

    Raises:
        FileNotFoundError: no such manifest; at once.
        ManifestError: naming file, line and field; when the first row is asked for; also if no row is left.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "texts.jsonl"
        ...     _ = path.write_text('{"text": "good morning", "duration": 0.9, "speaker": "ann"}')
        ...     row = SpeechManifest(str(path))[0]
        >>> row.id, row.text, row.segments, row.duration_s
        ('texts:1', 'good morning', (), 0.9)
    """

    def __init__(
        self,
        path: str,
        on_bad_row: Literal["error", "skip"] = "error",
        lang: str | None = None,
    ) -> None:
        check_language(lang or DEFAULT_LANG)
        self.path = str(manifest_path(path))
        self.lang = lang
        self.on_bad_row = on_bad_row
        self.skipped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        return self._rows[check_index(index, len(self), self)]

    @cached_property
    def _rows(self) -> list[Utterance]:
        rows: list[Utterance] = []
        lines: dict[str, int] = {}
        bad = BadLines(self.path, self.on_bad_row, self.skipped)
        for number, line in numbered_lines(self.path):
            try:
                row = self._new_row(line, number, lines)
            except ManifestError as error:
                bad.add(error)
                continue
            lines[row.id] = number
            rows.append(row)

        bad.report(len(rows), "text")
        return rows

    def _new_row(self, line: bytes, number: int, lines: dict[str, int]) -> Utterance:
        """The row of a line, whose id is in none of the ``lines`` before."""
        where = f"{self.path}, line {number}"
        stem = Path(self.path).stem
        row = self._row(parse_object(line, where), where, default_id=f"{stem}:{number}")
        if row.id in lines:
            problem = f"{row.id!r} is already used in line {lines[row.id]}; ids must be unique"
            raise ManifestError(where, "id", problem, "duplicate id")
        return row

    def _row(self, fields: dict[str, Any], where: str, default_id: str) -> Utterance:
        """The row that the fields of a line describe."""
        fields = dict(fields)
        is_flat = "audio_filepath" in fields
        check_names(fields, where, _OPTIONAL)
        if is_flat and "segments" in fields:
            problem = "stands beside `segments`, whose entries have it; leave one of the two out"
            raise ManifestError(where, "audio_filepath", problem, "audio given twice")
        if not fields.get("audio_filepath") and not fields.get("segments"):
            _refuse_prompt_fields(fields, where)

        # ``duration`` is that of the speech to be made, so the prompt's length has another name in the line.
        if is_flat:
            names = {
                "audio_filepath": "audio_filepath",
                "offset": "offset",
                "prompt_duration": "duration",
            }
            prompt = {new: fields.pop(old) for old, new in names.items() if old in fields}
            fields["segments"] = [prompt]
        fields.setdefault("segments", [])

        if fields.get(TARGET) is not None:
            target, target_s = self._target(fields[TARGET], where)
            fields[TARGET] = target
            if fields.get("duration") is None:
                fields["duration"] = target_s

        try:
            row = self._parsed(fields, where, default_id)
        except ManifestError as error:
            raise (_of_prompt(error) if is_flat else error) from None
        _check_paces(row, where)
        if fields.get("duration") is not None:
            return row
        return self._with_length(row, fields, where, default_id)

    def _parsed(self, fields: dict[str, Any], where: str, default_id: str) -> Utterance:
        return parse_row(
            json.dumps(fields).encode(),
            where,
            folder=str(Path(self.path).parent),
            default_id=default_id,
            allow_empty_text=False,
            check_files=True,
            allow_no_audio=True,
            may_skip=self.on_bad_row == "skip",
            lang=self.lang or DEFAULT_LANG,
        )

    def _target(self, value: Any, where: str) -> tuple[list[dict[str, Any]], float]:
        """The recording with absolute paths, and its length in seconds."""
        listed = value if isinstance(value, list) else [value]
        # Read as a row of its own, for the checks of paths, offsets and durations.
        try:
            made = self._parsed({"text": "target", "segments": listed}, where, "target")
        except ManifestError as error:
            inside = "segments" if isinstance(value, list) else "segments[0]"
            raise _renamed(error, error.field.replace(inside, TARGET, 1)) from None
        if not made.segments:
            problem = "is an empty list; name a recording, or leave the field out"
            raise ManifestError(where, TARGET, problem, "no target")
        return target_field(made.segments), length_s(made.segments)

    def _with_length(
        self, row: Utterance, fields: dict[str, Any], where: str, default_id: str
    ) -> Utterance:
        """The row with the length that its text has at the pace of its prompt."""
        prompt_text = row.extra.get(PROMPT_TEXT, "")
        if not row.segments or not prompt_text.strip():
            problem = (
                "is missing, and there is no target, nor a prompt with prompt_text whose pace would tell; write the "
                "expected length in seconds"
            )
            raise ManifestError(where, "duration", problem, "missing duration")

        prompt_s = length_s(row.segments)
        fields["duration"] = round(len(row.text) * prompt_s / len(prompt_text), 4)
        return self._parsed(fields, where, default_id)


def _renamed(error: ManifestError, field: str) -> ManifestError:
    """The error, of the field as it stands in the line."""
    return ManifestError(error.where, field, error.problem, error.reason)


def _of_prompt(error: ManifestError) -> ManifestError:
    """The error, where the prompt's fields are those of the line."""
    field = error.field.removeprefix("segments[0].")
    if field != error.field and field == "duration":
        field = "prompt_duration"
    return _renamed(error, field)


def _refuse_prompt_fields(fields: dict[str, Any], where: str) -> None:
    """Refuse what only a speaker prompt has, where there is none."""
    name = meant_as("audio_filepath", fields)
    meant = f"; did you mean it by `{name}`?" if name else "; name a recording, or leave it out"
    for field in (PROMPT_TEXT, "prompt_duration", "offset"):
        if fields.get(field) is not None:
            problem = f"belongs to a speaker prompt, and the row has no `audio_filepath`{meant}"
            raise ManifestError(where, field, problem, "no prompt audio")
    check_names(fields, where, ("audio_filepath",))


def _check_paces(row: Utterance, where: str) -> None:
    """Refuse texts that nobody says in the time of their recordings: those of other recordings, or of longer ones."""
    prompt_text = row.extra.get(PROMPT_TEXT, "")
    if not isinstance(prompt_text, str):
        problem = f"expected a string, got {show(prompt_text)}; put it in quotes"
        raise ManifestError(where, PROMPT_TEXT, problem, f"type of {PROMPT_TEXT}")
    if "\0" in prompt_text:
        raise ManifestError(where, PROMPT_TEXT, "holds a NUL character; remove it", "NUL in text")

    recorded = {PROMPT_TEXT: (prompt_text, row.segments), TARGET: (row.text, target_segments(row))}
    for field, (text, segments) in recorded.items():
        seconds = length_s(segments)
        least_s = shortest_s(text)
        if segments and seconds + _FORGIVEN_S < least_s:
            problem = (
                f"{len(text)} characters of text in {seconds:g} s of audio, and nobody says them in less than "
                f"{least_s:.1f} s; give the text, offset and length of the same recording"
            )
            raise ManifestError(where, field, problem, "senseless pace")


def shortest_s(text: str) -> float:
    """Seconds below which nobody says a text: 40 letters or digits a second, 15 where a character is a syllable.

    Fast readers say 20 letters, or 8 Chinese characters, Japanese kana or Korean syllables, in a second.

    Example:
        >>> shortest_s("good morning") * 40, round(shortest_s("早上好") * 15)
        (11.0, 3)
    """
    letters = [char for char in text if char.isalnum()]
    num_syllables = len([char for char in letters if _SYLLABLES.match(char)])
    num_others = len(letters) - num_syllables
    return num_syllables / MOST_SYLLABLES_PER_S + num_others / MOST_LETTERS_PER_S
