"""A manifest of speech synthesis: texts with the very speaker prompt, and recording, that each is to have."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_audiorl.data.manifest.schema import ManifestError, parse_object, parse_row
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.data.manifest.targets import PROMPT_TEXT, TARGET, length_s, target_field
from lightning_audiorl.types import Utterance


class SpeechManifest(RowSource):
    """Rows of a JSONL file, read when a row is first asked for.

    A line: ``{"text": "hello", "audio_filepath": "ann.wav", "prompt_text": "good morning", "speaker": "ann"}``. The
    audio is the speaker prompt (``offset`` and ``prompt_duration`` cut it; ``segments`` join it; without any there is
    no prompt). ``target`` is a recording of the text for supervised training: ``{"audio_filepath", "duration",
    "offset"}`` or a list of such. ``duration`` is the expected length of the speech to be made; without it that of the
    target, else that of the text at the prompt's pace. Further fields as in `read_manifest`. Relative paths are taken
    from the manifest's folder.

    Args:
        path: the manifest.

    Raises:
        FileNotFoundError: no such manifest; at once.
        ManifestError: naming file, line and field; when the first row is asked for.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "texts.jsonl"
        ...     _ = path.write_text('{"text": "good morning", "duration": 0.9, "speaker": "ann"}')
        ...     row = SpeechManifest(str(path))[0]
        >>> row.id, row.text, row.segments, row.duration_s
        ('texts:1', 'good morning', (), 0.9)
    """

    def __init__(self, path: str) -> None:
        self.path = str(Path(path).expanduser().absolute())
        if not Path(self.path).is_file():
            raise FileNotFoundError(f"{self.path}: no such manifest")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        return self._rows[check_index(index, len(self), self)]

    @cached_property
    def _rows(self) -> list[Utterance]:
        rows: list[Utterance] = []
        lines: dict[str, int] = {}
        stem = Path(self.path).stem
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue

                where = f"{self.path}, line {number}"
                fields = parse_object(line, where)
                row = self._row(fields, where, default_id=f"{stem}:{number}")
                if row.id in lines:
                    problem = (
                        f"{row.id!r} is already used in line {lines[row.id]}; ids must be unique"
                    )
                    raise ManifestError(where, "id", problem, "duplicate id")
                lines[row.id] = number
                rows.append(row)

        if not rows:
            raise ManifestError(self.path, "text", "the manifest has no row", "empty manifest")
        return rows

    def _row(self, fields: dict[str, Any], where: str, default_id: str) -> Utterance:
        """The row that the fields of a line describe."""
        fields = dict(fields)
        # ``duration`` is that of the speech to be made, so the prompt's length has another name in the line.
        if "audio_filepath" in fields:
            names = {
                "audio_filepath": "audio_filepath",
                "offset": "offset",
                "prompt_duration": "duration",
            }
            prompt = {new: fields.pop(old) for old, new in names.items() if old in fields}
            fields["segments"] = [prompt]
        fields.setdefault("segments", [])

        if fields.get(TARGET) is not None:
            target, target_s = self._target(fields[TARGET], f"{where}, field `{TARGET}`")
            fields[TARGET] = target
            fields.setdefault("duration", target_s)

        row = self._parsed(fields, where, default_id)
        if "duration" in fields:
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
        )

    def _target(self, value: Any, where: str) -> tuple[list[dict[str, Any]], float]:
        """The recording with absolute paths, and its length in seconds."""
        listed = value if isinstance(value, list) else [value]
        # Read as a row of its own, for the checks of paths, offsets and durations.
        made = self._parsed({"text": "target", "segments": listed}, where, "target")
        if not made.segments:
            problem = "is an empty list; name a recording, or leave the field out"
            raise ManifestError(where, TARGET, problem, "no target")
        return target_field(made.segments), length_s(made.segments)

    def _with_length(
        self, row: Utterance, fields: dict[str, Any], where: str, default_id: str
    ) -> Utterance:
        """The row with the length that its text has at the pace of its prompt."""
        prompt_text = row.extra.get(PROMPT_TEXT, "")
        has_text = isinstance(prompt_text, str) and bool(prompt_text.strip())
        if not row.segments or not has_text:
            problem = (
                "is missing, and there is no target, nor a prompt with prompt_text whose pace would tell; write the "
                "expected length in seconds"
            )
            raise ManifestError(where, "duration", problem, "missing duration")

        prompt_s = length_s(row.segments)
        fields["duration"] = round(len(row.text) * prompt_s / len(prompt_text), 4)
        return self._parsed(fields, where, default_id)
