"""Common Voice: ``<split>.tsv`` with a header, and ``clips``. Quotation marks are text there, too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_audiorl.data.layouts.base import Found, Layout, refused, text_lines
from lightning_audiorl.data.manifest.schema import ManifestError

_NEEDED = ("client_id", "path", "sentence")
#: Columns that go along under their own names.
_KEPT = ("age", "gender", "accents", "variant", "segment", "sentence_id")


@dataclass
class CommonVoice(Layout):
    """One language of a release of Common Voice: the folder with ``clips`` and ``train.tsv``.

    Args:
        source: the folder of the language, such as ``cv-corpus-17.0/cy``.
        split: train, dev, test, validated, or another table that is there.
    """

    source: str
    split: str = "train"

    def inputs(self) -> list[Path]:
        table = self.folder / f"{self.split}.tsv"
        if not table.is_file():
            tables = ", ".join(sorted(path.stem for path in self.folder.glob("*.tsv"))) or "none"
            raise FileNotFoundError(f"{table}: no such file; tables that are there: {tables}")
        return [table]

    def rows(self) -> Iterator[Found | ManifestError]:
        (table,) = self.inputs()
        header: list[str] | None = None
        for where, line in text_lines(table, self.folder):
            if isinstance(line, ManifestError):
                yield line
            elif header is None:
                header = self._header(line, where)
            else:
                yield self._row(line, header, where)

    def _header(self, line: str, where: str) -> list[str]:
        header = line.split("\t")
        missing = [name for name in _NEEDED if name not in header]
        if missing:
            problem = (
                f"no column {missing[0]} among {', '.join(header)}; is it a table of Common Voice?"
            )
            raise ManifestError(where, "(whole line)", problem, "missing column")
        return header

    def _row(self, line: str, header: list[str], where: str) -> Found | ManifestError:
        cells = line.split("\t")
        if len(cells) != len(header):
            problem = f"has {len(cells)} fields, and the first line {len(header)}; remove a tab of the sentence"
            return refused(where, "(whole line)", problem, "number of fields")

        named = dict(zip(header, cells, strict=True))
        name = named["path"]
        if not name:
            return refused(where, "path", "is empty; name a clip", "missing file")
        # Early releases name the clips without their ending.
        file_name = name if "." in name else f"{name}.mp3"
        fields = {
            "id": Path(file_name).stem,
            "audio_filepath": str(self.folder / "clips" / file_name),
            "text": named["sentence"],
            "speaker": named["client_id"],
        }
        if named.get("locale"):
            fields["lang"] = named["locale"]
        kept = {column: named[column] for column in _KEPT if named.get(column)}
        return Found(where, {**fields, **kept})
