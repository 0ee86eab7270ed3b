"""Folders of CV3-Eval (arXiv:2505.17589): ``text``, ``prompt_text`` and ``prompt_wav.scp``, keyed by the same ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_audiorl.data.layouts.base import Found, Layout, refused, text_lines
from lightning_audiorl.data.layouts.spoken import language_of_folder, spoken_fields
from lightning_audiorl.data.manifest.schema import ManifestError

_FILES = {
    "text": "what is to be said, by id",
    "prompt_text": "what each prompt says, by id",
    "prompt_wav.scp": "the recording of each prompt, by id",
}


@dataclass
class Cv3Eval(Layout):
    """One set of CV3-Eval, as a manifest of texts to be spoken (`SpeechManifest`). Rows come in the order of ``text``.

    Paths of ``prompt_wav.scp`` are taken from the folder above in which they lead to a file: the repository's own, of
    the sets as they are published. The folder's name says the language: ``zh``, ``hard_zh``, ``to_zh``.

    Args:
        source: such as ``CV3-Eval/data/zero_shot/zh``.
    """

    source: str

    def inputs(self) -> list[Path]:
        return [self.need(self.folder / name, what) for name, what in _FILES.items()]

    def rows(self) -> Iterator[Found | ManifestError]:
        text_file, *others = self.inputs()
        prompt_texts, prompts = (_table(path) for path in others)
        lang = language_of_folder(self.folder)

        for where, line in text_lines(text_file, self.folder):
            if isinstance(line, ManifestError):
                yield line
                continue
            name, text = _entry(line)
            try:
                for table, path in zip((prompt_texts, prompts), others, strict=True):
                    if name not in table:
                        problem = f"{name!r} has no line in {path.name}; add one, or remove it here"
                        raise refused(where, path.name, problem, "no prompt")
                prompt = self._file(prompts[name])
                fields = spoken_fields(where, name, text, prompt_texts[name], prompt, lang)
            except ManifestError as error:
                yield error
                continue
            yield Found(where, fields, sure=True)

    def _file(self, given: str) -> Path:
        """The file that a line of prompt_wav.scp names; beside the lists where it is nowhere."""
        folders = [Path.cwd(), self.folder, *self.folder.parents]
        paths = [folder / given for folder in folders]
        return next((path for path in paths if path.is_file()), self.folder / given)


def _entry(line: str) -> tuple[str, str]:
    """Id and rest of a line."""
    name, *rest = line.strip().split(maxsplit=1)
    return name, rest[0] if rest else ""


def _table(path: Path) -> dict[str, str]:
    """The rest of each line by its id.

    Raises:
        ManifestError: an id that comes twice, or a line that is not in UTF-8.
    """
    table: dict[str, str] = {}
    for where, line in text_lines(path, path.parent):
        if isinstance(line, ManifestError):
            raise line
        name, rest = _entry(line)
        if name in table:
            problem = f"{name!r} stands in a line before already; leave one of the two"
            raise refused(where, "id", problem, "duplicate id")
        table[name] = rest
    return table
