"""Field names that are meant as one of ours: those of other data sets, and slips of the pen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from functools import lru_cache

#: What other data sets and tools call our fields; lower case, without underscores.
_ELSEWHERE = {
    "audio_filepath": frozenset(
        (
            "audio",
            "audiofile",
            "audiofilename",
            "audiopath",
            "file",
            "filename",
            "filepath",
            "path",
            "prompt",
            "promptaudio",
            "promptaudiofilepath",
            "promptaudiopath",
            "promptpath",
            "promptwav",
            "refaudio",
            "referenceaudio",
            "wav",
            "wavpath",
        )
    ),
    "text": frozenset(("normalizedtext", "sentence", "transcript", "transcription", "utterance")),
    "lang": frozenset(("langcode", "langid", "language", "languagecode", "languageid", "locale")),
    "duration": frozenset(("dur", "durations", "durationms", "lengths")),
    "offset": frozenset(("offsets", "offsetms", "startoffset")),
    "prompt_text": frozenset(
        ("prompttranscript", "prompttranscription", "reftext", "referencetext")
    ),
    "prompt_duration": frozenset(("promptdur", "promptlength")),
    "target": frozenset(("targetaudio", "targetaudiofilepath", "targetpath", "targetwav")),
}
#: From this likeness on, a name is a slip: "ofset" has 0.91, "speaker_id" for "speaker" 0.82.
_ALIKE = 0.86


def meant_as(field: str, names: Iterable[str]) -> str:
    """The first of ``names`` that is probably meant as ``field``; "" when there is none.

    Example:
        >>> meant_as("audio_filepath", ["text", "audio_path"]), meant_as("lang", ["length"])
        ('audio_path', '')
    """
    return next((name for name in names if _is_meant(field, name)), "")


def misspelt(fields: Mapping[str, object], optional: tuple[str, ...]) -> tuple[str, str] | None:
    """The first name that seems to be one of the ``optional`` fields, where that is missing, and which it is.

    Example:
        >>> misspelt({"text": "hello", "lang_id": "de"}, ("lang", "offset"))
        ('lang_id', 'lang')
    """
    return _misspelt(frozenset(fields), optional)


# The lines of a manifest have few sets of names.
@lru_cache(maxsize=1024)
def _misspelt(names: frozenset[str], optional: tuple[str, ...]) -> tuple[str, str] | None:
    for field in optional:
        if field not in names:
            name = meant_as(field, sorted(names))
            if name:
                return name, field
    return None


def _is_meant(field: str, name: str) -> bool:
    plain = _plain(name)
    if plain in _ELSEWHERE.get(field, ()) or plain == _plain(field):
        return True
    # A plain plural or singular of a longer word is another word: "segment" may be a number.
    return len(name) > 3 and SequenceMatcher(None, field, name.lower()).ratio() >= _ALIKE


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")
