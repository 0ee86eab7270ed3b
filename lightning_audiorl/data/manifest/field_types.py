"""What each field of a manifest's line holds: msgspec compares a line with it, and a fault is named by its path."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from lightning_audiorl.data.manifest.json_lines import show


class _Audio(msgspec.Struct):
    """A file, or a stretch of one; whether a field has to be there is asked later."""

    audio_filepath: str = ""
    duration: float | None = None
    offset: float | None = None
    gap: float | None = None


class _Row(_Audio):
    id: str = ""
    text: str = ""
    spoken_text: str = ""
    lang: str = ""
    speaker: str = ""
    keywords: list[str] = []
    hotwords: list[str] = []
    effects: list[str] = []
    segments: list[_Audio] = []


# By what msgspec calls the type that it expected.
_PROBLEMS = {
    "str": "expected a string, got {}; put it in quotes",
    "float": "expected a number of seconds, got {}",
    "array": "expected a list of strings, got {}",
    "object": "expected an object, got {}",
}


def wrong_type(fields: dict[str, Any]) -> tuple[str, str] | None:
    """The path of the first field that holds another type than it should, and what to say of it; None without any.

    Args:
        fields: of a line; those that have no type of their own may hold anything.

    Example:
        >>> wrong_type({"audio_filepath": "a.wav", "keywords": ["anna", 3], "mine": {}})
        ('keywords[1]', 'expected a string, got int 3; put it in quotes')
        >>> wrong_type({"segments": [{"audio_filepath": "a.wav", "duration": "1.5"}]})
        ('segments[0].duration', 'expected a number of seconds, got str "1.5"')
    """
    try:
        msgspec.convert(fields, _Row)
    except msgspec.ValidationError as error:
        message = str(error)
    else:
        return None

    # Without an expectation: a whole number that no float can hold.
    expected = re.match(r"Expected `(\w+)", message)
    problem = _PROBLEMS[expected[1] if expected else "float"]
    path = message.rpartition(" - at `$.")[2].rstrip("`")
    if path == "segments":
        problem = problem.replace("strings", "objects")
    return path, problem.format(show(_value_at(fields, path)))


def _value_at(fields: dict[str, Any], path: str) -> Any:
    value: Any = fields
    for name, number in re.findall(r"([a-z_]+)|\[(\d+)\]", path):
        value = value[name] if name else value[int(number)]
    return value
