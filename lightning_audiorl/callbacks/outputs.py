"""Where what callbacks write goes: a run's folders, its TensorBoard, Markdown tables in either."""

from __future__ import annotations

import html
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


def plain_markdown(text: str) -> str:
    """A text in which Markdown finds no HTML.

    Example:
        >>> plain_markdown("<b>one</b> & two")
        '&lt;b&gt;one&lt;/b&gt; &amp; two'
    """
    return html.escape(text, quote=False)


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
        safe = [plain_markdown(cell).replace("|", "\\|").replace("\n", " ") for cell in cells]
        return f"| {' | '.join(safe)} |"

    rule = "|" + "---|" * len(header)
    return "\n".join([line(header), rule, *map(line, rows)])
