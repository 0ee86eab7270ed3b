"""What is measured on an evaluation set: one small factory per task, which YAML can name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

from torch import nn
from torchmetrics import Metric

from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.metrics.asr import AsrMetrics
from lightning_audiorl.metrics.specs import RegistersSpecs
from lightning_audiorl.text.compare import TextWatch
from lightning_audiorl.text.normalise import Normaliser, checked_normalisers


class SetEvaluation(RegistersSpecs, ABC):
    """Makes the metric of each set and decoding: ``update(hypotheses, seconds)``, ``compute() -> dict`` of scalars.

    A metric that also has ``rows_of(groups) -> list[RowResult]``, of the hypotheses of its last update, lets the report
    show rows and give intervals.

    Attributes:
        specs: of the metrics that are this evaluation's own; see `metrics.specs`.

        reference_logprob: whether the evaluator also measures how probable the reference texts are.

    Example:
        >>> class Keywords(SetEvaluation):
        ...     def new(self):
        ...         return AsrMetrics(keywords=["york"])
        >>> sorted(Keywords().new().compute())[:3]
        ['cer', 'correct_rate', 'deletion_rate']
    """

    reference_logprob: bool = False

    @abstractmethod
    def new(self) -> Metric:
        """A metric with nothing counted yet."""

    def judges(self) -> Sequence[nn.Module]:
        """Models that the metrics listen with; a strategy parks them outside the reward phase."""
        return ()

    def with_panel(self, panel: JudgePanel) -> Self:
        """The same evaluation with its judges on a panel, which its metrics ask; itself where it has no judges."""
        return self


class AsrEvaluation(SetEvaluation):
    """Recognition quality, see `AsrMetrics`.

    Args:
        keywords: looked for in every row, beside ``row.keywords``.
        normalisers: by language code, in place of the built-in table.
        reference_logprob: also measures how probable the reference texts are, see `ReferenceProbability`: one pass
            more over each set, under its first decoding's metrics.
        utterance_wer: also gives the mean over utterances of the error rate of each, see `AsrMetrics`.

    Example:
        >>> AsrEvaluation(keywords=["york"]).new().keywords
        ('york',)
    """

    def __init__(
        self,
        keywords: list[str] | None = None,
        normalisers: dict[str, Normaliser] | None = None,
        reference_logprob: bool = False,
        utterance_wer: bool = False,
    ) -> None:
        self.keywords = keywords
        self.utterance_wer = utterance_wer
        self.reference_logprob = reference_logprob
        self.normalisers = checked_normalisers(normalisers)
        # One for all evaluations of a run: what it says, it says once.
        self._watch = TextWatch("AsrEvaluation")

    def new(self) -> AsrMetrics:
        """An `AsrMetrics` with nothing counted yet."""
        return AsrMetrics(
            self.keywords, self.normalisers, self._watch, utterance_wer=self.utterance_wer
        )
