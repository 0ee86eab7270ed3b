"""Texts to be spoken, from a file, a list or another source, times the voices of speaker prompts."""

from __future__ import annotations

import json
import unicodedata
from functools import cached_property

import torch

from lightning_audiorl.checks import check_number
from lightning_audiorl.data.corpora.speaker_prompts import known_speaker, speech_row, with_sources
from lightning_audiorl.data.draws import settings_name
from lightning_audiorl.data.manifest.files import IndexedManifest
from lightning_audiorl.data.manifest.json_lines import holds_half
from lightning_audiorl.data.manifest.line_files import text_file
from lightning_audiorl.data.manifest.schema import (
    ManifestError,
    check_names,
    parse_object,
    parse_row,
)
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.data.manifest.words import wordless
from lightning_audiorl.languages import check_language
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.types import Utterance

#: Length of speech where neither the row nor a prompt says more: 14 characters a second, a common English pace.
SECONDS_PER_CHAR = 1 / 14


def outside(text: str, charset: str) -> str:
    """The first character of ``text`` that ``charset`` lacks; "" when there is none.

    Example:
        >>> outside("call bob!", "abcdefghijklmnopqrstuvwxyz ")
        '!'
    """
    return next((char for char in text if char not in charset), "")


def check_charset(text: str, charset: str, where: str) -> None:
    """Refuse a text with a character that is not among those of ``charset``.

    Raises:
        ValueError: begins with ``where``; names the character and its place.
    """
    char = outside(text, charset)
    if not char:
        return

    # The code point and its name tell apart what looks alike, such as the kinds of apostrophes.
    name = unicodedata.name(char, "no name")
    code_point = f"U+{ord(char):04X}"
    place = text.index(char) + 1
    raise ValueError(
        f"{where}: text {text!r} has {char!r} ({code_point}, {name}) at place {place}, outside the charset "
        f"{charset!r}; spell it otherwise, remove the row, or widen the charset"
    )


def check_text(text: str, where: str) -> None:
    """Refuse a text that no program can say: with a NUL character, or half of a surrogate pair.

    Raises:
        ManifestError: for the field ``text``.
    """
    if "\0" in text:
        raise ManifestError(where, "text", "holds a NUL character; remove it", "NUL in text")
    if holds_half(text):
        problem = "holds half of a surrogate pair, usually what is left of an emoji; write it again"
        raise ManifestError(where, "text", problem, "half a character")


class Texts(RowSource):
    """Texts without audio, from a file or a list.

    Args:
        path: a plain text file (one text a line) or a JSONL file (``{"text": ...}``, optionally ``id``, ``lang``,
            ``speaker``, ``keywords`` and other fields; audio is passed over). Blank lines are passed over. Ids:
            ``<file stem>:<line number>`` where a line names none.
        lang: language of lines that name none.
        lines: the texts themselves, in place of a file.

    Raises:
        ValueError: both or neither of path and lines.
        FileNotFoundError: no such file.
        ManifestError: a line that cannot be used, naming file, line and field; no text at all; an id used twice.

    Example:
        >>> [row.text for row in Texts(lines=["good morning", "", "good night"])]
        ['good morning', 'good night']
    """

    def __init__(
        self,
        path: str | None = None,
        lang: str = "en",
        lines: list[str] | None = None,
    ) -> None:
        check_language(lang)
        self.lang = lang
        if (path is None) == (lines is None):
            raise ValueError("Texts: give either the path of a file or lines")

        if path is not None:
            self._read(path)
        else:
            self._take(list(lines or []))

        if not self._rows:
            raise ManifestError(
                self._where, "text", "there is no text; give at least one", "no text"
            )
        self._check_ids()

    def _read(self, name: str) -> None:
        path = text_file(name, "file of texts")
        numbered = enumerate(path.read_bytes().splitlines(), start=1)
        self._where = str(path)
        self._stem = path.stem
        self._json = path.suffix == ".jsonl"
        self._rows = [self._row(line, number) for number, line in numbered if line.strip()]

    def _take(self, texts: list[str]) -> None:
        # Ids are to differ between two lists, so they hold a name of what is in them.
        self._stem = f"texts-{settings_name(*texts)}"
        self._where = self._stem
        numbered = enumerate(texts, start=1)
        self._rows = [self._plain(text, number) for number, text in numbered if text.strip()]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        return self._rows[check_index(index, len(self), self)]

    def _plain(self, text: str, number: int) -> Utterance:
        text = text.strip()
        where = f"{self._where}, line {number}"
        check_text(text, where)
        problem = wordless(text)
        if problem:
            raise ManifestError(where, "text", problem, "text without words")
        return Utterance(
            id=f"{self._stem}:{number}",
            segments=(),
            text=text,
            duration_s=len(text) * SECONDS_PER_CHAR,
            lang=self.lang,
        )

    def _row(self, line: bytes, number: int) -> Utterance:
        where = f"{self._where}, line {number}"
        if not self._json:
            try:
                return self._plain(line.decode("utf-8-sig"), number)
            except UnicodeDecodeError as error:
                problem = f"is not UTF-8 ({error}); write the file again"
                raise ManifestError(where, "text", problem, "encoding") from error

        # Whatever audio the line has is passed over.
        given = parse_object(line, where)
        check_names(given, where, ("lang",))
        fields = {**given, "segments": []}
        # A text that is no string is refused by parse_row, which names the field.
        text = fields.get("text", "")
        text = text if isinstance(text, str) else ""
        fields.setdefault("duration", len(text) * SECONDS_PER_CHAR)
        return parse_row(
            json.dumps(fields).encode(),
            where,
            folder="",
            default_id=f"{self._stem}:{number}",
            allow_empty_text=False,
            check_files=False,
            allow_no_audio=True,
            lang=self.lang,
        )

    def _check_ids(self) -> None:
        seen: set[str] = set()
        for row in self._rows:
            if row.id in seen:
                problem = f"{row.id!r} is used twice; ids must be unique"
                raise ManifestError(self._where, "id", problem, "duplicate id")
            seen.add(row.id)


class TextSpeech(RowSource):
    """Texts to be spoken, each in the voice of one or more speaker prompts that are drawn for it.

    A draw is keyed by seed and text id, so it does not depend on the other texts. A text that names a speaker gets
    prompts of that speaker. Row ``x`` with prompt ``p`` becomes ``x+p``.

    Args:
        texts: `Texts` of a file, or other rows, whose audio is passed over, such as `HardTexts`.
        prompts: recordings with their texts, such as `FsddDigits`, `EspeakCorpus` or the path of a JSONL manifest; None
            gives rows without prompt.
        prompts_per_text: how many different prompts each text is spoken with.
        only_speakers: use prompts of these speakers alone; None uses all.
        charset: all characters that texts may have; None allows any.
        seconds_per_char: expected length of speech per character of text. None takes the pace of the prompt, and where
            its text is empty the length that the text row names.
        seed: another seed gives other pairs.

    Raises:
        FileNotFoundError, ManifestError: of ``prompts``.
        ValueError: a text outside ``charset``; an unknown speaker; fewer prompts than ``prompts_per_text``.

    Example:
        >>> rows = TextSpeech(Texts(lines=["good morning"]), seconds_per_char=0.05)
        >>> [(row.text, row.segments, row.duration_s) for row in rows]
        [('good morning', (), 0.6)]
    """

    def __init__(
        self,
        texts: RowSource,
        prompts: RowSource | str | None = None,
        prompts_per_text: int = 1,
        only_speakers: list[str] | None = None,
        charset: str | None = None,
        seconds_per_char: float | None = None,
        seed: int = 0,
    ) -> None:
        if seconds_per_char is not None:
            check_number("TextSpeech.seconds_per_char", seconds_per_char)
        if prompts_per_text < 1 or (seconds_per_char is not None and seconds_per_char <= 0):
            raise ValueError(
                f"TextSpeech: want prompts_per_text >= 1, seconds_per_char > 0; got {prompts_per_text=}, "
                f"{seconds_per_char=}"
            )

        self.texts = texts
        self.prompts = IndexedManifest(prompts) if isinstance(prompts, str) else prompts
        if self.prompts is None and (prompts_per_text > 1 or only_speakers):
            raise ValueError(
                "TextSpeech: prompts_per_text and only_speakers choose among prompts; give prompts"
            )

        self.prompts_per_text = prompts_per_text
        self.only_speakers = only_speakers
        self.seconds_per_char = seconds_per_char
        self.seed = seed

        if charset is not None:
            for row in self.texts:
                check_charset(row.text, charset, f"TextSpeech: row {row.id!r}")

    def __len__(self) -> int:
        return len(self.texts) * self.prompts_per_text

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        check_index(index, len(self), self)
        number, place = divmod(index, self.prompts_per_text)
        row = self.texts[number]
        if self.prompts is None:
            made = speech_row(row, row.id, None, self._expected_s(row, None))
            return with_sources(made, row)

        prompt_number = self._numbers(row)[place]
        prompt = self.prompts[prompt_number]
        made = speech_row(
            row,
            row_id=f"{row.id}+{prompt.id}",
            prompt=prompt,
            duration_s=self._expected_s(row, prompt),
        )
        return with_sources(made, row, prompt)

    @cached_property
    def _of_speaker(self) -> dict[str, list[int]]:
        """Row numbers of the prompts that may be used, by speaker; those of all under ""."""
        assert self.prompts is not None  # without prompts no row asks for numbers
        found: dict[str, list[int]] = {}
        for number, prompt in enumerate(self.prompts):
            found.setdefault(prompt.speaker, []).append(number)
        if self.only_speakers is not None:
            where = "TextSpeech.only_speakers"
            found = {name: known_speaker(name, found, where) for name in self.only_speakers}

        everyone: list[int] = []
        for numbers in found.values():
            everyone += numbers
        return {**found, "": sorted(everyone)}

    def _numbers(self, row: Utterance) -> list[int]:
        """The prompts of a text, by number."""
        if row.speaker:
            where = f"TextSpeech: row {row.id!r}"
            numbers = known_speaker(row.speaker, self._of_speaker, where)
        else:
            numbers = self._of_speaker[""]

        if len(numbers) < self.prompts_per_text:
            raise ValueError(
                f"TextSpeech: row {row.id!r} is to be spoken with {self.prompts_per_text} different prompts and there "
                f"are {len(numbers)}; lower prompts_per_text or give more prompts"
            )

        generator = keyed_generator("pair", self.seed, row.id)
        order = torch.randperm(len(numbers), generator=generator).tolist()
        places = order[: self.prompts_per_text]
        return [numbers[place] for place in places]

    def _expected_s(self, row: Utterance, prompt: Utterance | None) -> float:
        """Expected length of the speech to be made, in seconds."""
        if self.seconds_per_char is not None:
            return len(row.text) * self.seconds_per_char
        if prompt is not None and prompt.text.strip():
            return len(row.text) * prompt.duration_s / len(prompt.text)
        return row.duration_s or len(row.text) * SECONDS_PER_CHAR
