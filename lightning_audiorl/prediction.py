"""``audiorl predict``: a manifest decoded by one or more models, as JSON lines that builders of subsets read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader

from lightning_audiorl.algorithms.evaluation import EvalDecoding
from lightning_audiorl.algorithms.prediction import Decoded, DecodedBatch, Prediction
from lightning_audiorl.callbacks.prediction_progress import PredictionProgress
from lightning_audiorl.data.batching import duration_batches
from lightning_audiorl.data.datamodule import AsrDataModule
from lightning_audiorl.data.hypotheses import Predicted, Sample, row_fingerprint
from lightning_audiorl.data.hypothesis_parts import HypothesisParts, RowsSurvey, survey_rows
from lightning_audiorl.data.hypothesis_summary import summary
from lightning_audiorl.data.manifest import ManifestRows
from lightning_audiorl.data.rows import PickedRows, RowSource
from lightning_audiorl.data.streams import EvalStream
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.models.reference import content_hash
from lightning_audiorl.text import count_errors, count_keywords, fired_rules, normaliser_for
from lightning_audiorl.types import Decoding, PromptBatch, Utterance

_TRAINER = {
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}


def predict(
    models: dict[str, Policy],
    rows: RowSource | str,
    out: str,
    decodings: dict[str, EvalDecoding] | None = None,
    keywords: list[str] | None = None,
    max_batch_s: float = 120.0,
    max_batch_size: int = 64,
    seed: int = 0,
    num_workers: int = 0,
    sample_rate_hz: int = 16000,
    limit_rows: int | None = None,
    overwrite: bool = False,
    trainer: dict[str, Any] | None = None,
) -> None:
    """Decode rows with one or more models and write their hypotheses, one JSON line per row and model.

    A run that was killed goes on where it stopped when the same command is given again, and its file is the one that
    an undisturbed run writes, but for measured seconds. Ends with a table of error and hallucination rates.

    Args:
        models: policies by name; the name stands in every line.
        rows: class path of rows, or the path of a JSONL manifest (texts may be empty).
        out: JSONL file; a row's lines stand together, in the order of rows and models.
        decodings: by name; by default "greedy", and "sampled" with 4 samples at temperature 1.
        keywords: counted in every row, beside the row's own.
        max_batch_s: padded seconds of audio per batch.
        max_batch_size: rows per batch.
        seed: keys every draw, with decoding, row and sample.
        num_workers: processes that read audio; 0 reads in this one.
        sample_rate_hz: what the models want.
        limit_rows: only the first so many rows.
        overwrite: start afresh where ``out`` was made, or begun, with something else.
        trainer: arguments of Lightning's Trainer, such as accelerator, devices, strategy, precision.
    """
    if not models:
        raise ValueError("predict: `models` is empty; give at least one, as name: {class_path: ..., init_args: ...}")
    decodings = decodings or {"greedy": EvalDecoding(), "sampled": EvalDecoding(Decoding(temperature=1.0), 4)}
    source = _source(rows, limit_rows)
    survey = survey_rows(source)
    settings = {
        "rows": {"number": survey.num_rows, "content": survey.content},
        "decodings": [{"name": name, **asdict(how)} for name, how in decodings.items()],
        "keywords": keywords or [],
        "seed": seed,
        "sample_rate_hz": sample_rate_hz,
        "models": [
            {"name": name, "class": type(policy).__name__, "content": content_hash(policy)}
            for name, policy in models.items()
        ],
    }
    parts = HypothesisParts(out, settings, list(models), survey.num_rows)
    if not overwrite:
        parts.check()
    if overwrite or not parts.is_complete:
        batches = {"max_batch_s": max_batch_s, "max_eval_batch_size": max_batch_size, "num_workers": num_workers}
        for number, (name, policy) in enumerate(models.items()):
            afresh = overwrite and number == 0
            if afresh or not parts.done(number).all():
                data = PredictionData(source, survey, parts, number, afresh, sample_rate_hz=sample_rate_hz, **batches)
                _run(Prediction(policy, decodings, seed), data, name, keywords or [], dict(trainer or {}))
    _finish(parts, survey)


@rank_zero_only
def _finish(parts: HypothesisParts, survey: RowsSurvey) -> None:
    """Join what all ranks wrote, and say what it holds."""
    if not parts.is_complete:
        parts.join()
    print(f"{parts.out}: {survey.num_rows} rows, models: {', '.join(parts.models)}\n")
    print(summary(parts.out, survey.units))


def _source(rows: RowSource | str, limit_rows: int | None) -> RowSource:
    source = ManifestRows(rows, allow_empty_text=True) if isinstance(rows, str) else rows
    if limit_rows is not None and limit_rows < 1:
        raise ValueError(f"predict: limit_rows must be at least 1, got {limit_rows}")
    return source if limit_rows is None or limit_rows >= len(source) else PickedRows(source, range(limit_rows))


def _run(module: Prediction, data: PredictionData, name: str, keywords: list[str], settings: dict[str, Any]) -> None:
    callbacks: list[Callback] = [HypothesisWriter(name, keywords), *settings.pop("callbacks", [])]
    if settings.get("enable_progress_bar", True):
        callbacks.append(PredictionProgress(name))
    runs = Trainer(**{**_TRAINER, **settings, "callbacks": callbacks})
    runs.predict(module, datamodule=data, return_predictions=False)


class PredictionData(AsrDataModule):
    """The rows that one model has still to decode, in batches by duration.

    Batches are cut from all rows, and those that are done are left out whole: a run that goes on decodes each row in
    the batch that it would have been in anyway, so that even rounding is the same.

    Args:
        source: all rows.
        survey: of them.
        parts: what is done.
        model: number of the model.
        overwrite: start afresh.
        settings: of `AsrDataModule`.

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
        **settings: Any,
    ) -> None:
        super().__init__(predict={"rows": source}, **settings)
        self.source, self.survey, self.parts, self.model, self.overwrite = source, survey, parts, model, overwrite
        self.batches: list[list[int]] = []
        self.num_rows: list[int] = []
        self.audio_s: list[float] = []

    def prepare_data(self) -> None:
        """Rank 0 alone, the others wait: what is there is of the same rows and models, or gone."""
        self.parts.begin(self.overwrite)

    def predict_dataloader(self) -> Any:
        """One loader over this rank's batches."""
        assert self.trainer is not None
        num_ranks, durations = self.trainer.world_size, self.survey.durations_s
        ranks = [
            duration_batches(durations, self.max_batch_s, self.max_eval_batch_size, num_ranks, rank)
            for rank in range(num_ranks)
        ]
        self.done = self.parts.done(self.model)
        self.batches, self.num_rows, self.audio_s = [], [], []
        for batch in zip(*ranks, strict=True):
            missing = [row for part in batch for row in part if not self.done[row]]
            if missing:
                self.batches.append(batch[self.trainer.global_rank])
                self.num_rows.append(len(missing))
                self.audio_s.append(sum(durations[row] for row in missing))
        # Lightning warns of any iterable data set with a length; here each worker gives its own part, so it is right.
        warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__` defined")
        return DataLoader(EvalStream(self.batches, self._build), batch_size=None, num_workers=self.num_workers)

    def _build(self, index: list[int]) -> PromptBatch:
        return self.load([self.source[row] for row in index])


class HypothesisWriter(Callback):
    """Counts errors and rules in each batch, and adds its lines to this rank's part file as soon as it is decoded.

    Args:
        model: name of the model.
        keywords: counted in every row.
    """

    def __init__(self, model: str, keywords: list[str]) -> None:
        self.model, self.keywords = model, keywords

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        """No rank writes before every rank knows what is done."""
        trainer.strategy.barrier()

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
        """No rank goes on before every rank has written."""
        trainer.strategy.barrier()

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: PromptBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Write the rows of one batch that were not done before."""
        data: PredictionData = trainer.datamodule
        numbers = data.batches[batch_idx]
        lines = zip(numbers, predicted(batch.rows, outputs, self.model, self.keywords), strict=True)
        missing = ((number, line) for number, line in lines if not data.done[number])
        data.parts.append(data.model, trainer.global_rank, missing)


def predicted(
    rows: tuple[Utterance, ...], decoded: DecodedBatch, model: str, keywords: list[str]
) -> Iterator[Predicted]:
    """One record per row of a batch: hypotheses with their counts, log-probs and seconds to four decimals."""
    second_s = decoded.seconds / max(sum(row.duration_s for row in rows), 1e-9)
    for row, group in zip(rows, decoded.groups, strict=True):
        samples = tuple(_sample(row, one, [*keywords, *row.keywords]) for one in group)
        seconds = round(second_s * row.duration_s, 4)
        yield Predicted(row.id, model, row.text, row_fingerprint(row), samples, seconds)


def _sample(row: Utterance, decoded: Decoded, keywords: list[str]) -> Sample:
    normaliser, text = normaliser_for(row.lang), decoded.hypothesis.text
    reference, hypothesis = normaliser.normalise(row.text), normaliser.normalise(text)
    return Sample(
        text=text,
        decoding=decoded.decoding,
        sample=decoded.sample,
        log_prob=round(decoded.log_prob, 4),
        num_tokens=decoded.hypothesis.num_tokens,
        finished=decoded.hypothesis.finished,
        errors=count_errors(reference, hypothesis, normaliser.unit),
        rules=tuple(fired_rules(normaliser.units(row.text), normaliser.units(text))),
        keywords=count_keywords(row.text, text, keywords, normaliser),
    )
