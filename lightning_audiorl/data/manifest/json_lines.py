"""One line of JSON as an object, whatever a file may hold: what cannot be used is an error of one kind."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar

import msgspec

_Filled = TypeVar("_Filled")

#: Lists and objects inside each other; far below what Python's own reader, writer and copier stand.
MAX_DEPTH = 64
#: Names the fault of a line that is no object at all.
WHOLE_LINE = "(whole line)"

_SURROGATE = re.compile("[\ud800-\udfff]")
_FLAT_DECODER = msgspec.json.Decoder(dict[str, str | int | float | bool | None])


class JsonLineError(ValueError):
    """A line that is no object, or one that cannot be used.

    Args:
        field: the field at fault, or ``(whole line)``.
        problem: what was found and how to mend it.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"field `{field}`: {problem}")
        self.field = field
        self.problem = problem


class _TooManyDigits:
    """Stands for a number that Python does not read."""


def read_object(line: bytes | str, *, any_text: bool = False) -> dict[str, Any]:
    r"""The fields of a line.

    Args:
        line: in UTF-8; a byte order mark in front is passed over.
        any_text: take strings with halves of surrogate pairs, which no file, log or terminal can hold.

    Raises:
        JsonLineError: the line is no JSON in UTF-8 or no object; a name stands in it twice; it is nested deeper than
            64; a number has thousands of digits; a string holds half of a surrogate pair.

    Example:
        >>> read_object(b'{"text": "hello"}')
        {'text': 'hello'}
        >>> read_object(rb'{"text": "hello \ud83d"}')
        Traceback (most recent call last):
            ...
        lightning_audiorl.data.manifest.json_lines.JsonLineError: field `text`: holds half of a surrogate pair ...
    """
    if isinstance(line, str):
        line = line.encode("utf-8", "surrogatepass")
    # Nearly all lines of a manifest; of others is said what is wrong with them.
    flat = flat_object(line)
    if flat is not None:
        return flat
    value = _parsed(line)

    # Both are rare: the line says at once whether there can be any.
    num_opened = line.count(b"[") + line.count(b"{")
    if num_opened > MAX_DEPTH and _is_deep(value):
        _refuse_depth()
    if not isinstance(value, dict):
        raise JsonLineError(WHOLE_LINE, f"expected an object {{...}}, got {show(value)}")
    if not any_text and (b"\\ud" in line or b"\\uD" in line):
        _refuse_halves(value)
    return value


def flat_object(line: bytes) -> dict[str, Any] | None:
    """The fields of a line without lists and objects in it, each named once; None of any other line, good or bad.

    Read by msgspec, as most lines are of this kind and it is far faster than Python's own reader.

    Example:
        >>> flat_object(b'{"text": "hello", "duration": 1.5}')
        {'text': 'hello', 'duration': 1.5}
        >>> flat_object(b'{"text": "hello", "text": "good bye"}'), flat_object(b'{"segments": []}')
        (None, None)
    """
    try:
        fields = _FLAT_DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None

    # msgspec takes the last of two fields of one name: the line then holds more strings than the object.
    num_strings = len(fields) + list(map(type, fields.values())).count(str)
    return fields if num_quotes(line) == 2 * num_strings else None


def num_quotes(line: bytes) -> int:
    r"""How many quotation marks of a line begin or end a string; -1 where counting does not tell.

    Example:
        >>> num_quotes(rb'{"text": "he said \"no\""}'), num_quotes(rb'{"text": "C:\\"}')
        (4, -1)
    """
    if b"\\" not in line:
        return line.count(b'"')
    if rb"\\" in line:
        return -1
    return line.count(b'"') - line.count(rb"\"")


def filled(kind: type[_Filled], fields: dict[str, Any]) -> _Filled:
    """An object of a frozen dataclass with these very fields, all of them, in a third of its constructor's time.

    Nothing is checked: for what a line is known to hold, where millions of them are read.

    Example:
        >>> from lightning_audiorl.types import Segment
        >>> fields = {"audio_filepath": "a.wav", "duration_s": 1.5, "offset_s": 0.0, "gap_s": 0.0}
        >>> filled(Segment, fields) == Segment("a.wav", 1.5)
        True
    """
    made = object.__new__(kind)
    made.__dict__.update(fields)
    return made


def holds_half(text: str) -> bool:
    """Whether a text has half of a surrogate pair in it."""
    return _SURROGATE.search(text) is not None


def show(value: Any, most: int = 60) -> str:
    """Type and value, as error messages name what they got.

    Example:
        >>> show(3), show("a" * 80, most=12)
        ('int 3', 'str "aaaaaaaa...')
    """
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > most:
        text = text[: most - 3] + "..."
    return f"{type(value).__name__} {text}"


def _parsed(line: bytes) -> Any:
    try:
        # Said outright, as `json` would guess at other encodings. Python decodes the one with a mark far slower.
        text = line.decode("utf-8-sig" if line.startswith(codecs.BOM_UTF8) else "utf-8")
        return _DECODER.decode(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        problem = f"is not JSON in UTF-8 ({error}); write one object per line"
        raise JsonLineError(WHOLE_LINE, problem) from error
    except JsonLineError:
        raise
    except RecursionError:
        _refuse_depth()
    except ValueError:
        # Python reads no whole number of more than 4,300 digits.
        _refuse_digits(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of one object; of a name that stands twice, nobody knows which one is meant."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        shown = _SURROGATE.sub("?", twice)
        raise JsonLineError(shown, "stands twice in the line; leave one of the two out")
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _refuse_depth() -> NoReturn:
    problem = f"is nested deeper than {MAX_DEPTH} lists and objects; leave such fields out"
    raise JsonLineError(WHOLE_LINE, problem) from None


def _refuse_digits(text: str) -> NoReturn:
    """Names the field with a whole number of more digits than Python reads."""

    def number(digits: str) -> Any:
        return _TooManyDigits() if len(digits) > 4000 else int(digits)

    value = json.loads(text, parse_int=number)
    field = _field_with(value, lambda item: isinstance(item, _TooManyDigits))
    raise JsonLineError(field, "is a number of thousands of digits; correct it") from None


def _refuse_halves(fields: dict[str, Any]) -> None:
    def is_broken(item: Any) -> bool:
        return isinstance(item, str) and holds_half(item)

    field = _field_with(fields, is_broken)
    if field:
        problem = (
            "holds half of a surrogate pair (such as \\ud83d), usually what is left of an emoji that was cut; write "
            "the text again"
        )
        raise JsonLineError(field, problem)


def _field_with(value: Any, is_meant: Callable[[Any], bool]) -> str:
    """The outermost field that holds such an item, at any depth; ``(whole line)`` outside of fields, "" without any."""
    if not isinstance(value, dict):
        return WHOLE_LINE if any(map(is_meant, _items(value))) else ""
    for name, inside in value.items():
        if is_meant(name):
            return WHOLE_LINE
        if any(map(is_meant, _items(inside))):
            return name
    return ""


def _items(value: Any) -> Iterable[Any]:
    """A value, and all that lies in it."""
    left = [value]
    while left:
        item = left.pop()
        yield item
        if isinstance(item, dict):
            left += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            left += item


def _is_deep(value: Any) -> bool:
    """Whether lists and objects lie inside each other more than `MAX_DEPTH` deep."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inside: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inside += item.values()
            elif isinstance(item, list):
                inside += item
        level = [item for item in inside if isinstance(item, dict | list)]
        if not level:
            return False
    return True
