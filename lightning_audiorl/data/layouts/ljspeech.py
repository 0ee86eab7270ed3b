"""LJSpeech: ``metadata.csv`` of ``id|text|normalised text``, and ``wavs/<id>.wav``. Quotation marks are text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning_audiorl.data.layouts.base import Found, Layout, refused, text_lines
from lightning_audiorl.data.manifest.schema import ManifestError

_AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus")


@dataclass
class LJSpeech(Layout):
    """A data set in the layout of LJSpeech, as many small TTS sets are.

    The file is called csv and is none: a text may hold a quotation mark at its beginning, in its middle and nowhere
    else, so lines are split at ``|`` and nothing more.

    Args:
        source: the folder with ``metadata.csv`` and ``wavs``.
        text: normalised takes the last column, in which numbers are words; raw the second one.
    """

    source: str
    text: Literal["normalised", "raw"] = "normalised"

    def __post_init__(self) -> None:
        if self.text not in ("normalised", "raw"):
            raise ValueError(
                f"ljspeech: want --text normalised or --text raw, got {self.text!r}; the file names no columns"
            )

    def inputs(self) -> list[Path]:
        return [self.need(self.folder / "metadata.csv", "id|text|normalised text")]

    def rows(self) -> Iterator[Found | ManifestError]:
        (table,) = self.inputs()
        self.need(self.folder / "wavs", "the folder of the recordings")
        for where, line in text_lines(table, self.folder):
            yield line if isinstance(line, ManifestError) else self._row(line, where)

    def _row(self, line: str, where: str) -> Found | ManifestError:
        cells = line.split("|")
        if len(cells) not in (2, 3):
            problem = f"expected id|text or id|text|normalised text, got {len(cells)} fields; remove a | of the text"
            return refused(where, "(whole line)", problem, "number of fields")

        name = cells[0].strip()
        # In some copies of the layout the normalised text is left out, or empty.
        text = cells[-1] if self.text == "normalised" and cells[-1].strip() else cells[1]
        wav = self.folder / "wavs" / name
        candidates = [wav, *(wav.with_name(wav.name + ending) for ending in _AUDIO)]
        path = next((one for one in candidates if name and one.is_file()), candidates[1])
        return Found(where, {"id": name, "audio_filepath": str(path), "text": text.strip()})
