"""AISHELL-1: one transcript of all utterances, and ``wav/<split>/<speaker>/<id>.wav``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_audiorl.data.layouts.base import Found, Layout, refused, text_lines
from lightning_audiorl.data.manifest.schema import ManifestError

_TRANSCRIPTS = "transcript/*transcript*.txt"


@dataclass
class Aishell(Layout):
    """AISHELL-1 as it is unpacked: the folder with ``transcript`` and ``wav`` (archives of the speakers unpacked, too).

    Spaces between the words of a transcript are taken out; the language is zh. A few utterances have a transcript and
    no audio, or audio and no transcript, in the published set itself: those without audio are left out here without a
    word, as every recipe does, and audio without a transcript is refused.

    Args:
        source: such as ``data_aishell``.
        split: train, dev or test; none: all three.
    """

    source: str
    split: str | None = None

    def inputs(self) -> list[Path]:
        root = self.folder
        found = sorted(root.glob(_TRANSCRIPTS)) or sorted(root.glob(f"*/{_TRANSCRIPTS}"))
        if len(found) != 1:
            problem = "no such file" if not found else f"{len(found)} such files; leave one"
            raise FileNotFoundError(
                f"{root / _TRANSCRIPTS}: {problem}; give the folder with transcript and wav (data_aishell)"
            )
        return found

    def rows(self) -> Iterator[Found | ManifestError]:
        (transcript,) = self.inputs()
        root = transcript.parents[1]
        wav = self.need(root / "wav" / (self.split or ""), "the folder of the recordings")
        audio = {path.stem: path for path in sorted(wav.rglob("*.wav"))}
        if not audio:
            problem = "holds no wav file; unpack the archives of the speakers in it"
            raise ManifestError(str(wav), "(whole folder)", problem, "no audio")

        for where, line in text_lines(transcript, root):
            if isinstance(line, ManifestError):
                yield line
                continue
            name, *words = line.split()
            path = audio.pop(name, None)
            if path is not None:
                fields = {
                    "id": name,
                    "audio_filepath": str(path),
                    "text": "".join(words),
                    "speaker": path.parent.name,
                    "lang": "zh",
                }
                yield Found(where, fields)

        for name, path in audio.items():
            problem = f"{name} has no line in {transcript.name}; add one, or remove the file"
            yield refused(str(path.relative_to(root)), "text", problem, "no text")
