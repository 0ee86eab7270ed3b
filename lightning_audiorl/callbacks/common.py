"""What the callbacks share: where a run's files go, its TensorBoard writers, and its last evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

Results = Mapping[str, Mapping[str, float]]


def run_folder(trainer: Trainer, dirpath: str | None, name: str) -> Path:
    """``dirpath``, or ``<default_root_dir>/<name>``."""
    return Path(dirpath) if dirpath else Path(trainer.default_root_dir) / name


def tensorboard_writers(trainer: Trainer) -> list[Any]:
    """The SummaryWriter of every TensorBoard logger; empty without one."""
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def flat_figures(results: Results, kind: str = "val") -> dict[str, float]:
    """Figures by log key: ``{"long": {"wer": 0.3}}`` -> ``{"val/long/wer": 0.3}``."""
    return {f"{kind}/{name}/{key}": value for name, figures in results.items() for key, value in figures.items()}


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cells are made safe against its syntax."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)])
