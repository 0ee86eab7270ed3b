"""Where what callbacks write goes: a run's folders, its TensorBoard, Markdown tables in either."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger


def run_folder(trainer: Trainer, dirpath: str | None, name: str) -> Path:
    """``dirpath``, or ``<default_root_dir>/<name>``."""
    return Path(dirpath) if dirpath else Path(trainer.default_root_dir) / name


def tensorboard_writers(trainer: Trainer) -> list[Any]:
    """The SummaryWriter of every TensorBoard logger; empty without one."""
    return [
        logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)
    ]


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
    r"""A Markdown table; cells are made safe against its syntax.

    Example:
        >>> print(markdown_table(["id", "text"], [["a", "one|two"]]))
        | id | text |
        |---|---|
        | a | one\|two |
    """

    def line(cells: Sequence[str]) -> str:
        safe = [printable(cell).replace("|", "\\|") for cell in cells]
        return f"| {' | '.join(safe)} |"

    rule = "|" + "---|" * len(header)
    return "\n".join([line(header), rule, *map(line, rows)])
