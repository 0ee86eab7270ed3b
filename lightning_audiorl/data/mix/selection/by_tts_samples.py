"""Which rows of speech synthesis are fit for RL, by what judges made of the policy's own samples of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from statistics import fmean, median
from typing import ClassVar

from lightning_audiorl.checks import check_number
from lightning_audiorl.data.hypotheses.schema import Sample
from lightning_audiorl.data.mix.selection.base import Candidate, SubsetBuilder, Verdict
from lightning_audiorl.data.mix.selection.hypothesis_choice import (
    HypothesisChoice,
    pass_rate_verdict,
)
from lightning_audiorl.types import Utterance


@dataclass(eq=False)
class SampleRule(SubsetBuilder):
    """A rule over the policy's own samples of a row, as judges heard them.

    Every rule takes these arguments, by name, besides its own.

    Args:
        decodings: look at these decodings only, by name (sampled ones, if greedy ones are there too); none: at all.
        model: whose samples, where files of several models are given.
        min_samples: fewest samples a row must have.
        num_rows: most rows kept; none keeps all.
    """

    needs_hypotheses: ClassVar[bool] = True

    _: KW_ONLY
    decodings: Sequence[str] | None = None
    model: str | None = None
    min_samples: int = 1
    num_rows: int | None = None

    def __post_init__(self) -> None:
        super().__init__(self.num_rows)
        name = type(self).__name__
        if self.min_samples < 1:
            raise ValueError(f"{name}: want min_samples >= 1, got {self.min_samples}")

        self._choice = HypothesisChoice(name, self.decodings, self.model, self.min_samples)

    def judge(self, candidate: Candidate) -> Verdict:
        """Whether the row may be used.

        Raises:
            ValueError: the row has no samples, or samples of a model that does not speak.
        """
        samples = self._choice.of_one_model(candidate)
        if any(sample.speech is None for sample in samples):
            raise ValueError(
                f"{type(self).__name__}: row {candidate.row.id!r} has hypotheses without `speech`; decode the rows "
                "with a model that speaks, and judges"
            )
        return self.judge_samples(candidate.row, samples)

    @abstractmethod
    def judge_samples(self, row: Utterance, samples: list[Sample]) -> Verdict:
        """Whether a row may be used of which these are the samples; each has ``speech``."""


@dataclass(eq=False)
class PassRate(SampleRule):
    """Rows that the policy says well sometimes: their groups will have reward variance.

    A sample passes when the judge's character error rate is at most ``max_cer``; the row stays when its pass rate p
    lies strictly between the bounds. Rows with the largest p (1 - p) come first. Samples that the judge failed on count
    neither way.

    Example: CER 0, 0.5, 0.1, 0.02 with ``max_cer=0.05`` -> p = 0.5, priority 0.25.

    Args:
        low: pass rate must be above it.
        high: pass rate must be below it.
        max_cer: highest character error rate of a sample that passes.
        min_samples: fewest samples a row must have: one alone has no variance.
    """

    low: float = 0.0
    high: float = 1.0
    max_cer: float = 0.05
    min_samples: int = field(default=2, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("PassRate.max_cer", self.max_cer)
        if not 0 <= self.low < self.high <= 1 or self.max_cer < 0:
            raise ValueError(
                f"PassRate: want 0 <= low < high <= 1, max_cer >= 0; got low={self.low}, high={self.high}, "
                f"max_cer={self.max_cer}"
            )

    def judge_samples(self, row: Utterance, samples: list[Sample]) -> Verdict:
        cers = [
            sample.speech.cer
            for sample in samples
            if sample.speech and sample.speech.cer is not None
        ]
        if not cers:
            return Verdict(False, "the judge failed on every sample")

        num_passed = sum(cer <= self.max_cer for cer in cers)
        return pass_rate_verdict(num_passed, len(cers), self.low, self.high)


@dataclass(eq=False)
class Similar(SampleRule):
    """Rows whose samples sound like their prompt: mean similarity, over the samples that have one, not below a floor.

    Args:
        min_similarity: the floor, a cosine.
    """

    min_similarity: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.min_similarity <= 1:
            raise ValueError(f"Similar: want -1 <= min_similarity <= 1, got {self.min_similarity}")

    def judge_samples(self, row: Utterance, samples: list[Sample]) -> Verdict:
        found = [
            s.speech.similarity for s in samples if s.speech and s.speech.similarity is not None
        ]
        if not found:
            return Verdict(False, "no sample has a similarity")

        mean = fmean(found)
        if mean < self.min_similarity:
            return Verdict(False, f"mean similarity below {self.min_similarity:g}")
        return Verdict(True, f"mean similarity {mean:.2f}")


@dataclass(eq=False)
class TokenRate(SampleRule):
    """Rows that the policy speaks at a fair pace: speech tokens per second of expected speech.

    Expected is the row's ``duration_s``: over the waveform's own seconds the rate would be the codec's, whatever was
    said. The median of the samples counts.

    Args:
        low: slowest pace, in tokens per expected second.
        high: fastest.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.low <= self.high:
            raise ValueError(
                f"TokenRate: want 0 <= low <= high, in tokens per second; got {self.low}, {self.high}"
            )

    def judge_samples(self, row: Utterance, samples: list[Sample]) -> Verdict:
        rate = median(sample.num_tokens for sample in samples) / row.duration_s
        if rate < self.low:
            return Verdict(False, f"fewer than {self.low:g} tokens per expected second")
        if rate > self.high:
            return Verdict(False, f"more than {self.high:g} tokens per expected second")
        return Verdict(True, f"{rate:.1f} tokens per expected second")


@dataclass(eq=False)
class Stops(SampleRule):
    """Rows whose samples end by themselves.

    Args:
        max_share: largest share of samples that the length cap cut.
    """

    max_share: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.max_share < 1:
            raise ValueError(f"Stops: want 0 <= max_share < 1, got {self.max_share}")

    def judge_samples(self, row: Utterance, samples: list[Sample]) -> Verdict:
        cut = sum(not sample.finished for sample in samples) / len(samples)
        if cut > self.max_share:
            return Verdict(
                False, f"more than {self.max_share:g} of the samples lack the stop token"
            )
        return Verdict(True, f"{1 - cut:.2f} of the samples stop")
