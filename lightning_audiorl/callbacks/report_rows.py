"""The rows of an evaluation for a report: from all ranks, and with their audio."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
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
    lines = plain_rows(rows)
    if trainer.world_size > 1:
        ranks: list[list[dict[str, Any]]] = [[]] * trainer.world_size
        torch.distributed.all_gather_object(ranks, lines)
        lines = list(chain.from_iterable(ranks))
    return from_plain(lines)


def clip_loader(trainer: Trainer) -> LoadClip | None:
    """Reads the audio of a row as the data module does; None where that cannot read rows.

    Args:
        trainer: of the run.
    """
    load: Any = getattr(getattr(trainer, "datamodule", None), "load", None)
    if load is None:
        return None

    def clip(row: Utterance) -> tuple[Tensor, int] | None:
        try:
            batch = load([row])
        except (ValueError, OSError, RuntimeError) as error:
            # The run is over, and was not about this file.
            _log.warning("report: no player for row %r: %s", row.id, error)
            return None
        return batch.waveform[0, : int(batch.num_samples[0])], batch.sample_rate_hz

    return clip
