"""What lists of texts to be spoken have in common: the fields of a row, with the speaker prompt of its text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_audiorl.data.layouts.base import refused, sound_of
from lightning_audiorl.data.manifest.targets import PROMPT_TEXT, TARGET
from lightning_audiorl.data.manifest.tts import shortest_s

#: Languages that the folders of these lists are called by.
_LANGUAGES = frozenset(("de", "en", "es", "fr", "it", "ja", "ko", "ru", "zh"))


def spoken_fields(
    where: str, row_id: str, text: str, prompt_text: str, prompt: Path, lang: str
) -> dict[str, Any]:
    """The fields of a row, as `SpeechManifest` reads them.

    The expected length of the speech is that of the text at the prompt's pace; beside other scripts a character of
    Chinese, Japanese or Korean counts as much as a syllable of letters.

    Args:
        where: the row's place, for errors.
        row_id: its id.
        text: what is to be said.
        prompt_text: what the prompt says.
        prompt: the prompt's recording.
        lang: of the text; "" where nothing says it.

    Raises:
        ManifestError: an empty text, or a recording that is not there or cannot be read.
    """
    if not text.strip():
        raise refused(where, "text", "is empty; write what is to be said", "empty text")
    if not shortest_s(prompt_text):
        problem = f"has no word, got {prompt_text!r}; write what the prompt says"
        raise refused(where, PROMPT_TEXT, problem, "empty prompt text")
    if not prompt.is_file():
        problem = f"no such file: {prompt}; unpack the prompts beside the list"
        raise refused(where, "audio_filepath", problem, "missing file")

    prompt_s = sound_of(str(prompt), where).length_s
    expected_s = prompt_s * shortest_s(text) / shortest_s(prompt_text)
    fields: dict[str, Any] = {
        "id": row_id,
        "text": text.strip(),
        PROMPT_TEXT: prompt_text.strip(),
        "segments": [{"audio_filepath": str(prompt), "duration": round(prompt_s, 6)}],
        "duration": round(expected_s, 4),
    }
    if lang:
        fields["lang"] = lang
    return fields


def with_target(fields: dict[str, Any], recording: Path, where: str) -> dict[str, Any]:
    """The fields with a recording of the text; they are as long as that is.

    Raises:
        ManifestError: it is not there, or cannot be read.
    """
    if not recording.is_file():
        problem = f"no such file: {recording}; restore it, or leave the last column out"
        raise refused(where, TARGET, problem, "missing file")
    length_s = round(sound_of(str(recording), where).length_s, 6)
    target = [{"audio_filepath": str(recording), "duration": length_s}]
    return {**fields, TARGET: target, "duration": length_s}


def language_of_folder(folder: Path) -> str:
    """The language that the folder of a list is called by; "" where it is not.

    Example:
        >>> [language_of_folder(Path(name)) for name in ("en", "hard_zh", "to_ja", "lists")]
        ['en', 'zh', 'ja', '']
    """
    last = folder.name.rpartition("_")[2]
    return last if last in _LANGUAGES else ""
