"""Lists of Seed-TTS-eval (arXiv:2406.02430): ``id|prompt text|prompt wav|text to be spoken``, one a line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_audiorl.data.layouts.base import Found, Layout, refused, text_lines
from lightning_audiorl.data.layouts.spoken import language_of_folder, spoken_fields, with_target
from lightning_audiorl.data.manifest.schema import ManifestError


@dataclass
class SeedTts(Layout):
    """A list of Seed-TTS-eval, as a manifest of texts to be spoken (`SpeechManifest`).

    A fifth column, where it is there, is a recording of the text. Paths are taken from the folder of the list. A folder
    that is called by a language, such as ``zh``, says what language its texts are in.

    Args:
        source: such as ``seedtts_testset/en/meta.lst``.
    """

    source: str

    def inputs(self) -> list[Path]:
        path = Path(self.source).expanduser().absolute()
        if path.is_dir():
            raise FileNotFoundError(f"{path}: is a folder; give the list in it, such as meta.lst")
        return [self.need(path, "id|prompt text|prompt wav|text in each line")]

    def rows(self) -> Iterator[Found | ManifestError]:
        (path,) = self.inputs()
        for where, line in text_lines(path, path.parent):
            if isinstance(line, ManifestError):
                yield line
                continue
            try:
                # The lengths of the recordings are those of the files themselves.
                yield Found(where, _fields(line, where, path.parent), sure=True)
            except ManifestError as error:
                yield error


def _fields(line: str, where: str, folder: Path) -> dict[str, object]:
    cells = [cell.strip() for cell in line.split("|")]
    if len(cells) not in (4, 5):
        problem = (
            f"has {len(cells)} fields between |; expected id|prompt text|prompt wav|text to be spoken, and a recording "
            "of it where there is one"
        )
        raise refused(where, "(whole line)", problem, "number of fields")

    name, prompt_text, prompt, text, *recording = cells
    if not prompt:
        raise refused(where, "audio_filepath", "is empty; name the prompt's file", "missing file")
    lang = language_of_folder(folder)
    fields = spoken_fields(where, name, text, prompt_text, folder / prompt, lang)
    if recording and recording[0]:
        return with_target(fields, folder / recording[0], where)
    return fields
