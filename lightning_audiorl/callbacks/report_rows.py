"""The rows of an evaluation for a report: from all ranks, and with their audio."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor

from lightning_audiorl.callbacks.report_samples import LoadClip
from lightning_audiorl.metrics.rows import RowResult
from lightning_audiorl.reports.row_files import from_plain, plain_rows
from lightning_audiorl.types import Utterance

_log = logging.getLogger(__name__)


def gathered_rows(
    trainer: Trainer, rows: Mapping[str, Sequence[RowResult]]
) -> dict[str, list[RowResult]]:
    """The rows that all ranks have evaluated, by set; those of a set in the order of their ids.

    Args:
        trainer: of the run; every rank calls.
        rows: of this rank, by set.
    """
    if trainer.world_size == 1:
        return {name: sorted(of_set, key=lambda one: one.row.id) for name, of_set in rows.items()}
    ranks: list[list[dict[str, Any]]] = [[]] * trainer.world_size
    torch.distributed.all_gather_object(ranks, plain_rows(rows))
    return from_plain(list(chain.from_iterable(ranks)))


def clip_loader(trainer: Trainer) -> LoadClip | None:
    """Reads the audio of a row as the data module does; None where that cannot read rows.

    Args:
        trainer: of the run.
    """
    load: Any = getattr(getattr(trainer, "datamodule", None), "load", None)
    if load is None:
        return None

    def read(row: Utterance) -> tuple[Tensor, int]:
        batch = load([row])
        num_samples = int(batch.num_samples[0])
        return batch.waveform[0, :num_samples], batch.sample_rate_hz

    return clips_that_can_be_read(read)


def clips_that_can_be_read(read: Callable[[Utterance], tuple[Tensor, int]]) -> LoadClip:
    """Reads the audio of rows; the first that cannot be read is warned of, and has no player like those after it.

    Args:
        read: [num_samples] of a row and their rate in Hz.

    Example:
        >>> clips_that_can_be_read(print)(Utterance("a", (), "a text without audio", 0.0)) is None
        True
    """
    said: list[str] = []

    def clip(row: Utterance) -> tuple[Tensor, int] | None:
        if not row.segments:
            return None
        try:
            return read(row)
        except (ValueError, OSError, RuntimeError) as error:
            # The run is over, and was not about this file.
            if not said:
                said.append(row.id)
                _log.warning(
                    "report: no player for row %r: %s. Said once; other rows may be alike",
                    row.id,
                    error,
                )
            return None

    return clip
