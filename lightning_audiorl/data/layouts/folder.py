"""A folder of audio files, each with its text beside it (``a.wav``, ``a.txt``), or a table of file names and texts."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_audiorl.data.layouts.base import (
    Found,
    Layout,
    refused,
    shown,
    text_lines,
)
from lightning_audiorl.data.manifest.json_lines import JsonLineError, read_object
from lightning_audiorl.data.manifest.schema import ManifestError
from lightning_audiorl.data.sound.foreign import AUDIO_ENDINGS

_TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
_NAMES = ("file_name", "file", "path", "audio", "audio_filepath")
_TEXTS = ("text", "transcription", "transcript", "sentence")
_TEXT_ENDINGS = (".txt", ".lab")


@dataclass
class Folder(Layout):
    """A folder of audio with texts.

    With ``metadata.csv``, ``metadata.tsv`` or ``metadata.jsonl`` in it (the layout of Hugging Face's ``audiofolder``)
    the rows are those of the table: a column ``file_name``, one of the text, and others, which are kept. Without a
    table every audio file in it, at any depth, has its text in a file of the same name: ``a.txt`` or ``a.lab``.

    Args:
        source: the folder.
        text: column of the table that holds the text; none: the first of text, transcription, transcript, sentence.
    """

    source: str
    text: str | None = None

    def inputs(self) -> list[Path]:
        table = self._table()
        return [table] if table else self._files()

    def rows(self) -> Iterator[Found | ManifestError]:
        table = self._table()
        if table is None:
            yield from self._rows_of_files()
            return
        columns: tuple[str, str] | None = None
        for where, cells in _cells(table, self.folder):
            if isinstance(cells, ManifestError):
                yield cells
                continue
            columns = columns or self._columns(cells, table)
            yield self._row_of_table(cells, where, *columns)

    def _table(self) -> Path | None:
        tables = [self.folder / name for name in _TABLES if (self.folder / name).is_file()]
        if len(tables) > 1:
            names = " and ".join(table.name for table in tables)
            problem = f"{names} are there; leave one of them"
            raise ManifestError(str(self.folder), "(whole folder)", problem, "two tables")
        return tables[0] if tables else None

    def _columns(self, cells: dict[str, Any], table: Path) -> tuple[str, str]:
        """The columns of file name and text."""
        name = next((column for column in _NAMES if column in cells), None)
        wanted = [self.text] if self.text else list(_TEXTS)
        text = next((column for column in wanted if column in cells), None)
        if name is None or text is None:
            missing = " or ".join(_NAMES if name is None else wanted)
            problem = f"no column {missing} among {', '.join(cells)}; rename one, or name the text's with --text"
            raise ManifestError(str(table), "(first line)", problem, "missing column")
        return name, text

    def _row_of_table(
        self, cells: dict[str, Any], where: str, name_column: str, text_column: str
    ) -> Found | ManifestError:
        name = cells.get(name_column)
        if not isinstance(name, str) or not name:
            return refused(where, name_column, "is empty; name a file", "missing file")
        others = {
            column: value
            for column, value in cells.items()
            if column not in (name_column, text_column) and value not in (None, "")
        }
        fields = {"audio_filepath": str(self.folder / name), "text": cells.get(text_column)}
        row_id = str(Path(name).with_suffix(""))
        return Found(where, {"id": row_id, **others, **fields})

    def _files(self) -> list[Path]:
        """Audio files and texts, in the order of their names."""
        wanted = AUDIO_ENDINGS.union(_TEXT_ENDINGS)
        return sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in wanted)

    def _rows_of_files(self) -> Iterator[Found | ManifestError]:
        files = self._files()
        has_audio = {path.with_suffix("") for path in files if path.suffix.lower() in AUDIO_ENDINGS}
        if not has_audio:
            problem = "holds no audio file; give another folder, or another --kind"
            raise ManifestError(str(self.folder), "(whole folder)", problem, "no audio")

        for path in files:
            name = shown(path, self.folder)
            if path.suffix.lower() in AUDIO_ENDINGS:
                yield self._row_of_file(path, name)
            elif path.with_suffix("") not in has_audio:
                problem = "no audio file of this name; remove the text, or restore the audio"
                yield refused(name, "audio_filepath", problem, "text without audio")

    def _row_of_file(self, path: Path, name: str) -> Found | ManifestError:
        texts = [path.with_suffix(ending) for ending in _TEXT_ENDINGS]
        text_path = next((text for text in texts if text.is_file()), None)
        if text_path is None:
            problem = f"no {texts[0].name} or {texts[1].name} beside it; write what is said into one of them"
            return refused(name, "text", problem, "no text")
        try:
            text = text_path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            problem = f"{text_path.name} is not in UTF-8 ({error}); write it in UTF-8"
            return refused(name, "text", problem, "not UTF-8")
        row_id = shown(path.with_suffix(""), self.folder)
        # A text may be broken into lines; nothing else separates words.
        fields = {"id": row_id, "audio_filepath": str(path), "text": " ".join(text.split())}
        return Found(name, fields)


def _cells(table: Path, root: Path) -> Iterator[tuple[str, dict[str, Any] | ManifestError]]:
    """The lines of a table by column, with "metadata.csv, line 3"."""
    if table.suffix == ".jsonl":
        for where, line in text_lines(table, root):
            yield where, line if isinstance(line, ManifestError) else _object(line, where)
        return

    # Here quotes are quotes, and a text may go on in the next line: so it is written and read by everybody else.
    delimiter = "," if table.suffix == ".csv" else "\t"
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        for cells in reader:
            where = f"{shown(table, root)}, line {reader.line_num}"
            if None in cells or None in cells.values():
                problem = (
                    f"has another number of fields than the first line; put a text with a {delimiter!r} "
                    "in quotation marks"
                )
                yield where, refused(where, "(whole line)", problem, "number of fields")
            else:
                yield where, dict(cells)


def _object(line: str, where: str) -> dict[str, Any] | ManifestError:
    try:
        fields = read_object(line)
    except JsonLineError as error:
        return refused(where, error.field, error.problem, "bad JSON")
    return fields
