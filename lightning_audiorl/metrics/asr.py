"""The recognition metrics of an evaluation set as one torchmetrics class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_audiorl.metrics.functional import UtteranceCounts, asr_rates, utterance_counts
from lightning_audiorl.metrics.hotwords import HotwordCounts, hotword_counts, hotword_rates
from lightning_audiorl.metrics.rows import RECOGNISED, Compared, RowResult, recognition_parts
from lightning_audiorl.metrics.specs import RECOGNITION, RegistersSpecs
from lightning_audiorl.text.compare import TextWatch, compared
from lightning_audiorl.text.normalise import Normaliser, checked_normalisers, normaliser_for
from lightning_audiorl.types import Hypothesis


class AsrMetrics(RegistersSpecs, Metric):
    """All recognition metrics of one set; sums over processes.

    The state is one float64 vector of sums (the fields of `UtteranceCounts`), so counts stay exact and a sync is one
    collective. ``compute`` gives a dict of scalar tensors with the keys of `asr_rates`, NaN where a metric is
    undefined in this set; of a set whose rows have hotwords those of `hotword_rates`, too.

    Args:
        keywords: looked for in every row, beside ``row.keywords``.
        normalisers: by language code, in place of the built-in table.
        watch: says once which texts are counted otherwise than one may think; None makes one.
        utterance_wer: also gives the mean over utterances of the error rate of each, in which a short one weighs as
            much as a long one; utterances without a word in their reference have none.
        kwargs: see torchmetrics.Metric.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> metric = AsrMetrics()
        >>> metric.update([Hypothesis(Utterance("a", (), text="one two", duration_s=1.0, lang="en"), "one")])
        >>> metric.compute()["wer"]
        tensor(0.5000)
    """

    specs = RECOGNITION
    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    sums: Tensor
    hotword_sums: Tensor

    def __init__(
        self,
        keywords: list[str] | None = None,
        normalisers: dict[str, Normaliser] | None = None,
        watch: TextWatch | None = None,
        utterance_wer: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.keywords = tuple(keywords or ())
        self.normalisers = checked_normalisers(normalisers)
        self.watch = watch or TextWatch("AsrMetrics")
        self.utterance_wer = utterance_wer
        # Of the hypotheses of the last update, for `rows_of`: aligning texts twice would take twice the time.
        self._last_counts: list[UtteranceCounts] = []
        zeros = torch.tensor(UtteranceCounts().values(), dtype=torch.float64)
        self.add_state("sums", default=zeros, dist_reduce_fx="sum")
        zeros = torch.tensor(HotwordCounts().values(), dtype=torch.float64)
        self.add_state("hotword_sums", default=zeros, dist_reduce_fx="sum")

    def update(self, hypotheses: Sequence[Hypothesis], compute_seconds: float = 0.0) -> None:
        """Add hypotheses.

        Args:
            hypotheses: one or more per row; each counts as an utterance with the row's whole duration.
            compute_seconds: wall-clock seconds that recognising all of them took.

        Raises:
            ValueError: for speech, which has no text to compare.
        """
        if any(hypothesis.speech is not None for hypothesis in hypotheses):
            raise ValueError(
                "AsrMetrics compares text, but the policy speaks; set model.init_args.evaluation to "
                "lightning_audiorl.metrics.SpeechEvaluation with the judges that shall listen"
            )

        for hypothesis in hypotheses:
            row = hypothesis.row
            normaliser = normaliser_for(row.lang, self.normalisers)
            self.watch.look(row.id, row.lang, row.text, hypothesis.text, normaliser)

        counts = [
            utterance_counts(hypothesis, self.normalisers, self.keywords)
            for hypothesis in hypotheses
        ]
        of_lists = [
            hotword_counts(hypothesis, one, self.normalisers)
            for hypothesis, one in zip(hypotheses, counts, strict=True)
        ]
        self._last_counts = list(counts)
        counts.append(UtteranceCounts(compute_s=compute_seconds))

        # float64 holds whole numbers exactly up to 2**53: the order of batches and ranks cannot change a count.
        rows = torch.tensor([one.values() for one in counts], dtype=torch.float64)
        self.sums += rows.sum(0).to(self.sums.device)
        for one in of_lists:
            self.hotword_sums += self.hotword_sums.new_tensor(one.values())

    def rows_of(self, groups: Sequence[Sequence[Hypothesis]]) -> list[RowResult]:
        """What the last update says of each row.

        Args:
            groups: the hypotheses of that update, those of a row together.
        """
        results = []
        first = 0
        for group in groups:
            counts = self._last_counts[first : first + len(group)]
            first += len(group)

            row = group[0].row
            normaliser = normaliser_for(row.lang, self.normalisers)
            reference, written = compared(row.text, group[0].text, normaliser)
            text = Compared(group[0].text, reference, written, normaliser.unit)
            results.append(RowResult(row, {RECOGNISED: text}, recognition_parts(counts)))
        return results

    def compute(self) -> dict[str, Tensor]:
        """The metrics of `asr_rates` and `hotword_rates` as float32 scalars."""
        counts = UtteranceCounts(*self.sums.tolist())
        rates = asr_rates(counts)
        if self.utterance_wer:
            rates["utterance_wer"] = counts.rates / counts.rated if counts.rated else math.nan
        rates |= hotword_rates(HotwordCounts(*self.hotword_sums.tolist()))
        return {name: torch.tensor(rate, device=self.sums.device) for name, rate in rates.items()}
