"""Rows whose audio turns out to be bad when it is read: named by manifest, line and field, and whether they may go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

from lightning_audiorl.data.audio.reading import AudioError
from lightning_audiorl.types import Origin, Utterance

OnBadRow = Literal["error", "skip"]
#: Field of ``extra`` in which a built mix keeps the line that a row was read from, where it may be skipped.
READ_FROM = "read_from"
#: What bad audio, or a text that cannot be used, raises; a mistake in a program is none of these.
_READ_ERRORS = (ValueError, OSError, RuntimeError, MemoryError)
#: What messages of readers hold that are about a number in the row, and the field it stands in.
_FIELDS = {
    " s asked for at offset ": "duration",
    ": a duration of ": "duration",
    ": offset ": "offset",
    ": text ": "text",
    "field `target`": "target",
    "effect ": "effects",
}

_Read = TypeVar("_Read")


class BadRow(AudioError):
    """A row that cannot be used once its audio is read: names manifest, line, field and file.

    Args:
        message: all of that.
        may_skip: whether the row may be left out.
    """

    def __init__(self, message: str, may_skip: bool = False) -> None:
        super().__init__(message)
        self.may_skip = may_skip


class FieldError(AudioError):
    """Bad audio that a certain field of the row names.

    Args:
        message: what is wrong.
        field: of the row.
    """

    def __init__(self, message: str, field: str = "audio_filepath") -> None:
        super().__init__(message)
        self.field = field


def may_skip(row: Utterance, on_bad_row: OnBadRow) -> bool:
    """Whether a row may be left out: because its manifest says so, or because the data module does.

    Example:
        >>> row = Utterance("a", (), "one", 1.0, origin=Origin("m.jsonl, line 1", skip=True))
        >>> may_skip(row, "error"), may_skip(Utterance("b", (), "one", 1.0), "error")
        (True, False)
    """
    return on_bad_row == "skip" or _origin(row).skip


def read_row(row: Utterance, read: Callable[[Utterance], _Read], on_bad_row: OnBadRow) -> _Read:
    """``read(row)``.

    Raises:
        BadRow: where that fails.
    """
    try:
        return read(row)
    except _READ_ERRORS as error:
        raise BadRow(located(row, error), may_skip(row, on_bad_row)) from error


def located(row: Utterance, error: BaseException) -> str:
    """What is wrong with a row, with the manifest's line and field in front where it has one.

    Example:
        >>> row = Utterance("a", (), "one", 1.0, origin=Origin("m.jsonl, line 3"))
        >>> located(row, AudioError("row 'a': a.wav: holds no samples"))
        "m.jsonl, line 3, field `audio_filepath`: row 'a': a.wav: holds no samples"
    """
    message = str(error) or type(error).__name__
    if row.id not in message:
        message = f"row {row.id!r}: {message}"

    where = _origin(row).where
    if not where:
        return message
    field = error.field if isinstance(error, FieldError) else _field_of(message)
    return f"{where}, field `{field}`: {message}"


def _field_of(message: str) -> str:
    """The field that a reader's message is about."""
    found = [field for mark, field in _FIELDS.items() if mark in message]
    return found[0] if found else "audio_filepath"


@contextmanager
def field_names(**names: str) -> Iterator[None]:
    """Fields whose errors are those of other fields of the row: the recording of a row's text lies in its target.

    Args:
        names: the row's fields by those of an audio file's place: ``audio_filepath``, ``offset``, ``duration``.

    Raises:
        FieldError: for an `AudioError` inside.
    """
    try:
        yield
    except AudioError as error:
        field = _field_of(str(error))
        raise FieldError(str(error), names.get(field, field)) from error


def _origin(row: Utterance) -> Origin:
    """The line of a row, also of one that went through a built mix."""
    read_from = row.extra.get(READ_FROM)
    if isinstance(read_from, str):
        return Origin(read_from, skip=True)
    return row.origin or Origin("")
