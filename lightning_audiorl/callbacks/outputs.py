"""Where what callbacks write goes: folders, TensorBoard, Markdown tables in either; disks that refuse it."""

from __future__ import annotations

import errno
import html
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

#: What a disk says that takes no more, or nothing at all.
_REFUSALS = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EFBIG)


class WriteError(OSError):
    """A file of a run that could not be written: where, what, and why."""


def is_refusal(error: BaseException) -> bool:
    """Whether a disk that is full, read-only or closed to this user is behind an error.

    Example:
        >>> is_refusal(OSError(errno.ENOSPC, "No space left on device")), is_refusal(FileNotFoundError("x"))
        (True, False)
    """
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        return True
    # torch and safetensors hand on what the system said as text alone.
    texts = ("No space left on device", "Read-only file system", "PytorchStreamWriter failed")
    return any(text in str(error) for text in texts)


@contextmanager
def writing(what: str, where: Path) -> Iterator[None]:
    """Write something of a run; a disk that refuses it is told in a line.

    Args:
        what: is written.
        where: its file or folder.

    Raises:
        WriteError: for a disk that is full, read-only or closed to this user.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, WriteError) or not is_refusal(error):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise WriteError(
            f"{where}: cannot write {what}: {reason}; make room or choose another folder, and go on with "
            "--ckpt_path last"
        ) from None


def run_folder(trainer: Trainer, dirpath: str | None, name: str) -> Path:
    """``dirpath``, or ``<default_root_dir>/<name>``."""
    return Path(dirpath) if dirpath else Path(trainer.default_root_dir) / name


def tensorboard_writers(trainer: Trainer) -> list[Any]:
    """The SummaryWriter of every TensorBoard logger; empty without one, and in every process but the first."""
    boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    # Other ranks have writers that write nothing.
    if not boards or not trainer.is_global_zero:
        return []
    return [board.experiment for board in boards]


def plain_markdown(text: str) -> str:
    """A text in which Markdown finds no HTML.

    Example:
        >>> plain_markdown("<b>one</b> & two")
        '&lt;b&gt;one&lt;/b&gt; &amp; two'
    """
    return html.escape(text, quote=False)


def printable(text: str) -> str:
    r"""A text on one line that every file and font can take: no control characters, no halves of a character.

    Example:
        >>> printable("one\n\ttwo\x00\ud800")
        'one  two \ufffd'
    """
    safe = []
    for character in text:
        kind = unicodedata.category(character)
        if kind == "Cs":
            safe.append("\ufffd")
        else:
            safe.append(" " if kind in ("Cc", "Zl", "Zp") else character)
    return "".join(safe)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""A Markdown table; cells are made safe against its syntax, and against HTML, which Markdown lets through.

    Example:
        >>> print(markdown_table(["id", "text"], [["a", "one|two"]]))
        | id | text |
        |---|---|
        | a | one\|two |
        >>> print(markdown_table(["text"], [["<img src=x>"]]).splitlines()[-1])
        | &lt;img src=x&gt; |
    """

    def line(cells: Sequence[str]) -> str:
        safe = [plain_markdown(printable(cell)).replace("|", "\\|") for cell in cells]
        return f"| {' | '.join(safe)} |"

    rule = "|" + "---|" * len(header)
    return "\n".join([line(header), rule, *map(line, rows)])
