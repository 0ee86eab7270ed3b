"""The rows that a model has still to decode, as batches for ``Trainer.predict``."""

from __future__ import annotations

import shutil
import warnings
from itertools import chain
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from lightning_audiorl.data.datamodules.asr import AsrDataModule
from lightning_audiorl.data.datamodules.batching import duration_batches
from lightning_audiorl.data.datamodules.lengths import length_limits, padded_durations
from lightning_audiorl.data.datamodules.streams import EvalStream
from lightning_audiorl.data.hypotheses.writer import HypothesisParts, RowsSurvey
from lightning_audiorl.data.manifest.source import RowSource
from lightning_audiorl.types import PromptBatch


class PredictionData(LightningDataModule):
    """The rows that one model has still to decode, in batches by duration.

    Batches are cut from all rows, and those that are done are left out whole: a run that goes on decodes each row in
    the batch that it would have been in anyway, so that even rounding is the same.

    Args:
        source: all rows.
        survey: of them.
        parts: what is done.
        model: number of the model.
        overwrite: start afresh.
        loader: reads the audio of rows; its ``max_batch_s``, ``max_eval_batch_size`` and ``num_workers`` hold here.
        audio_folder: of the wav files of this run, which go with the lines when starting afresh; None without any.

    Attributes:
        batches: row numbers of this rank's batches.
        done: [num_rows] the rows that were done before.
        num_rows, audio_s: of each batch, over all ranks, rows already done left out.
    """

    def __init__(
        self,
        source: RowSource,
        survey: RowsSurvey,
        parts: HypothesisParts,
        model: int,
        overwrite: bool,
        loader: AsrDataModule,
        audio_folder: Path | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.survey = survey
        self.parts = parts
        self.model = model
        self.overwrite = overwrite
        self.loader = loader
        self.audio_folder = audio_folder

        self.batches: list[list[int]] = []
        self.num_rows: list[int] = []
        self.audio_s: list[float] = []

    def prepare_data(self) -> None:
        """Rank 0 alone, the others wait: what is there is of the same rows and models, or gone."""
        self.parts.begin(self.overwrite)
        if self.overwrite and self.audio_folder is not None:
            shutil.rmtree(self.audio_folder, ignore_errors=True)

    def predict_dataloader(self) -> Any:
        """One loader over this rank's batches.

        Raises:
            ValueError: a row is longer or shorter than the policy takes.
        """
        assert self.trainer is not None
        loader = self.loader
        durations_s = self.survey.durations_s
        self._check_lengths()

        num_ranks = self.trainer.world_size
        padded_s = padded_durations(durations_s, self.trainer)
        batches_by_rank = [
            duration_batches(
                durations_s,
                loader.max_batch_s,
                loader.max_eval_batch_size,
                num_ranks,
                rank,
                padded_s=padded_s,
            )
            for rank in range(num_ranks)
        ]

        # A batch is left out only where all ranks have done their part of it, so that all get as many.
        self.done = self.parts.done(self.model)
        self.batches = []
        self.num_rows = []
        self.audio_s = []
        for of_ranks in zip(*batches_by_rank, strict=True):
            rows = chain.from_iterable(of_ranks)
            missing = [row for row in rows if not self.done[row]]
            if missing:
                self.batches.append(of_ranks[self.trainer.global_rank])
                self.num_rows.append(len(missing))
                self.audio_s.append(sum(durations_s[row] for row in missing))

        # Lightning warns of any iterable data set with a length; here each worker gives its own part, so it is right.
        warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__` defined")
        return DataLoader(
            EvalStream(self.batches, self._build), batch_size=None, num_workers=loader.num_workers
        )

    def _check_lengths(self) -> None:
        """Raise ValueError for a row whose audio the policy does not take, before any is decoded."""
        limits = length_limits(None, None, self.trainer)
        for number, duration_s in enumerate(self.survey.durations_s):
            if limits.is_short(duration_s) or limits.is_long(duration_s):
                problem = limits.problem(self.source[number])
                raise ValueError(f"{problem}; cut it, or remove it from the manifest")

    def _build(self, index: list[int]) -> PromptBatch:
        return self.loader.load([self.source[row] for row in index])
