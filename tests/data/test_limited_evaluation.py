"""An evaluation of some batches: they are a draw of the set, and the run says of how many rows the figure is."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_audiorl.data import AsrDataModule, NonSpeech
from lightning_audiorl.data.datamodules.batching import duration_batches
from tests.data.fakes import Rows

DURATIONS = [round(0.1 + 0.01 * i, 2) for i in range(200)]


def durations(data: AsrDataModule, limit: float, num: int) -> list[float]:
    """Of the rows in the first batches that a Trainer with this limit gets."""
    trainer: Any = SimpleNamespace(limit_val_batches=limit)
    data.trainer = trainer
    batches = list(data.val_dataloader()[0])[:num]
    return [row.duration_s for batch in batches for row in batch.rows]


@pytest.mark.fault(
    "Manifests",
    "`limit_val_batches`: batches were sorted, so the figure was of the longest rows",
    "the first batches are a fixed draw of the set; without a limit nothing changes",
)
def test_some_batches_are_a_draw_of_the_set() -> None:
    data = AsrDataModule(val={"dev": Rows(DURATIONS)}, max_eval_batch_size=20, max_batch_s=60.0)
    whole = durations(data, 1.0, 99)
    assert whole == sorted(DURATIONS, reverse=True)

    for limit in (1, 0.2):
        some = durations(data, limit, 2)
        mean = sum(some) / len(some)
        assert abs(mean - sum(DURATIONS) / 200) < 0.25
        assert max(some) - min(some) > 1.2
        assert some == durations(data, limit, 2)
    assert sorted(durations(data, 10, 99)) == DURATIONS


def test_batches_of_any_order_keep_the_budget_and_agree_over_ranks() -> None:
    order = [(71 * i) % 200 for i in range(200)]
    ranks = [duration_batches(DURATIONS, 30.0, 16, 2, rank, order=order) for rank in (0, 1)]
    assert len(ranks[0]) == len(ranks[1])
    rows: list[int] = []
    for first, second in zip(*ranks, strict=True):
        assert len(first) == len(second) <= 16
        for batch in (first, second):
            assert len(batch) * max(DURATIONS[i] for i in batch) <= 30.0
            rows += batch
    assert sorted(rows) == list(range(200))


@pytest.mark.fault(
    "Manifests",
    "`limit_val_batches` and a figure over a part of the set",
    "a line says over how many rows it is, once",
)
def test_a_run_says_of_how_many_rows_a_figure_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from lightning import Trainer

    from lightning_audiorl.algorithms import SFT
    from tests.algorithms.tiny import make_policy

    data = AsrDataModule(val={"dev": NonSpeech(9, max_s=1.0)}, max_eval_batch_size=2)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        limit_val_batches=2,
    )
    module = SFT(make_policy(), 1)
    with caplog.at_level(logging.INFO):
        trainer.validate(module, datamodule=data)
        trainer.validate(module, datamodule=data)
    line = "val/dev: metrics are over 4 of 9 rows, a draw (trainer.limit_val_batches: 2)"
    assert caplog.text.count(line) == 1
