"""FLEURS as it is published: ``<language>/test.tsv`` without a header, and ``<language>/audio/test/<file>.wav``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_audiorl.data.layouts.base import Found, Layout, refused, text_lines
from lightning_audiorl.data.manifest.schema import ManifestError
from lightning_audiorl.languages import known_language

_COLUMNS = ("id", "file_name", "raw_transcription", "transcription", "letters", "num_samples")
#: What ``--text`` may name, and the column that it is.
_TEXTS = {"raw": "raw_transcription", "normalised": "transcription"}


@dataclass
class Fleurs(Layout):
    """One language of FLEURS, with the archives of its audio unpacked.

    The id of a row is the name of its file: those of the table are of sentences, which several speakers read. The
    folder's name, such as ``cmn_hans_cn``, says the language.

    Args:
        source: such as ``fleurs/data/de_de``.
        split: train, dev or test.
        text: raw, with capitals and signs, as Whisper's evaluation takes it; or normalised.
    """

    source: str
    split: str = "test"
    text: str = "raw"

    def inputs(self) -> list[Path]:
        return [self.need(self.folder / f"{self.split}.tsv", "the table of the split")]

    def rows(self) -> Iterator[Found | ManifestError]:
        if self.text not in _TEXTS:
            raise ValueError(f"fleurs: --text {self.text}: expected one of {', '.join(_TEXTS)}")
        (table,) = self.inputs()
        folder = self.need(self.folder / "audio" / self.split, "the unpacked audio of the split")
        lang = known_language(self.folder.name) or ""
        for where, line in text_lines(table, self.folder):
            yield line if isinstance(line, ManifestError) else self._row(line, folder, lang, where)

    def _row(self, line: str, folder: Path, lang: str, where: str) -> Found | ManifestError:
        cells = line.split("\t")
        if len(cells) < len(_COLUMNS):
            expected = f"{', '.join(_COLUMNS)}, and the speaker's gender"
            problem = (
                f"has {len(cells)} columns; expected {expected}: complete the line, or remove it"
            )
            return refused(where, "(whole line)", problem, "number of columns")

        named = dict(zip(_COLUMNS, cells, strict=False))
        name = named["file_name"]
        if not name:
            return refused(where, "file_name", "is empty; name a clip", "missing file")
        fields = {
            "id": Path(name).stem,
            "audio_filepath": str(folder / name),
            "text": named[_TEXTS[self.text]],
            "sentence": named["id"],
        }
        if lang:
            fields["lang"] = lang
        return Found(where, fields)
