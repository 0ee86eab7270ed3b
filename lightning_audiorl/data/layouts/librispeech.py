"""LibriSpeech, and sets in its layout: ``<speaker>/<chapter>/<speaker>-<chapter>.trans.txt`` beside flac."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_audiorl.data.layouts.base import Found, Layout, refused, text_lines
from lightning_audiorl.data.manifest.schema import ManifestError


@dataclass
class LibriSpeech(Layout):
    """A folder of LibriSpeech: one subset, or the folder that holds several.

    Args:
        source: such as ``LibriSpeech/test-clean``, or ``LibriSpeech``.
        split: subset in that folder, such as test-clean; none: all that lies in it.
    """

    source: str
    split: str | None = None

    def inputs(self) -> list[Path]:
        root = self.folder
        if self.split is not None:
            root = self.need(root / self.split, "the folder of the subset")
        return sorted(root.rglob("*.trans.txt"))

    def rows(self) -> Iterator[Found | ManifestError]:
        transcripts = self.inputs()
        if not transcripts:
            problem = (
                "holds no *.trans.txt; give the folder of a subset, such as LibriSpeech/test-clean"
            )
            raise ManifestError(str(self.folder), "(whole folder)", problem, "no transcripts")
        for transcript in transcripts:
            for where, line in text_lines(transcript, self.folder):
                yield line if isinstance(line, ManifestError) else _row(line, transcript, where)


def _row(line: str, transcript: Path, where: str) -> Found | ManifestError:
    name, _, text = line.strip().partition(" ")
    if not text.strip():
        return refused(where, "text", f"{name!r} stands without a text", "empty text")
    audio = [transcript.with_name(name + ending) for ending in (".flac", ".wav", ".mp3")]
    path = next((one for one in audio if one.is_file()), audio[0])
    fields = {
        "id": name,
        "audio_filepath": str(path),
        "text": text.strip(),
        "speaker": name.partition("-")[0],
    }
    return Found(where, fields)
