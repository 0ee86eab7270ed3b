"""Which of a row's hypotheses a builder looks at, and what it says when they are missing."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_audiorl.data.hypotheses.reader import Predicted, Sample
from lightning_audiorl.data.mix.selection.base import Candidate, Verdict, removed


class HypothesisChoice:
    """The samples of some decodings of one model, or of every model.

    Args:
        who: the builder, for errors.
        decodings: names of decodings; none: all.
        model: name of a model; none: the only one there is.
        min_samples: fewest samples that the builder can work with.
    """

    def __init__(
        self, who: str, decodings: Sequence[str] | None, model: str | None, min_samples: int
    ) -> None:
        if decodings is not None and (isinstance(decodings, str) or not decodings):
            raise ValueError(
                f"{who}: decodings must be a list of one or more names, got {decodings!r}"
            )

        self.who = who
        self.model = model
        self.min_samples = min_samples
        self.decodings = None if decodings is None else frozenset(decodings)

    def of_one_model(self, candidate: Candidate) -> list[Sample]:
        """At least ``min_samples`` samples of the one model asked for.

        Raises:
            ValueError: naming the row, when the model or samples are missing, or several models leave a choice.
        """
        predicted = self.line_of(candidate)
        samples = self._asked_for(predicted)
        if len(samples) < self.min_samples:
            raise self.error(candidate, self._too_few(predicted, len(samples), self.min_samples))
        return samples

    def line_of(self, candidate: Candidate) -> Predicted:
        """All that the one model asked for made of a row.

        Raises:
            ValueError: naming the row, when the model is missing, or several leave a choice.
        """
        predicted = self._predicted(candidate)
        # Without a name there must be one model only: another would silently change the subset.
        if self.model is not None:
            predicted = tuple(one for one in predicted if one.model == self.model)
        if len(predicted) != 1:
            models = ", ".join(repr(one.model) for one in candidate.predicted)
            wanted = (
                "name one of them as model"
                if self.model is None
                else f"none of them is {self.model!r}"
            )
            raise self.error(candidate, f"has hypotheses of {models}; {wanted}")
        return predicted[0]

    def of_models(self, candidate: Candidate) -> list[Sample]:
        """The first sample of each of two or more models.

        Raises:
            ValueError: naming the row, when there is one model only, or one without such a sample.
        """
        predicted = self._predicted(candidate)
        if len(predicted) < 2:
            raise self.error(
                candidate,
                f"has hypotheses of {predicted[0].model!r} only; run `audiorl predict` with a second model",
            )

        firsts = []
        for one in predicted:
            samples = self._asked_for(one)
            if not samples:
                raise self.error(candidate, self._too_few(one, 0, 1))
            firsts.append(samples[0])
        return firsts

    def _predicted(self, candidate: Candidate) -> tuple[Predicted, ...]:
        if not candidate.predicted:
            raise self.error(
                candidate,
                "has no hypotheses; run `audiorl predict` on its manifest and name the file",
            )
        return candidate.predicted

    def _asked_for(self, predicted: Predicted) -> list[Sample]:
        if self.decodings is None:
            return list(predicted.samples)
        return [sample for sample in predicted.samples if sample.decoding in self.decodings]

    def _too_few(self, predicted: Predicted, found: int, least: int) -> str:
        of = ""
        if self.decodings is not None:
            of = f" of decoding {' or '.join(sorted(self.decodings))}"
        names = ", ".join(sorted({sample.decoding for sample in predicted.samples})) or "none"
        return (
            f"has {found} samples{of} by {predicted.model!r}, needs {least} or more "
            f"(decodings there: {names}); run `audiorl predict` with that decoding and number of samples"
        )

    def error(self, candidate: Candidate, problem: str) -> ValueError:
        """An error that names builder and row."""
        return ValueError(f"{self.who}: row {candidate.row.id!r} {problem}")


def pass_rate_verdict(num_passed: int, num_samples: int, low: float, high: float) -> Verdict:
    """Keeps a row whose pass rate p lies strictly between the bounds, the largest p (1 - p) first.

    Rewards of a group vary most where half of its samples pass; where none or all do, there is nothing to learn.

    Example:
        >>> pass_rate_verdict(1, 4, low=0.0, high=1.0).priority
        0.1875
        >>> pass_rate_verdict(4, 4, low=0.0, high=1.0).reason
        'pass rate not below 1'
    """
    rate = num_passed / num_samples
    if rate <= low:
        return removed(f"pass rate not above {low:g}")
    if rate >= high:
        return removed(f"pass rate not below {high:g}")
    return Verdict(True, f"{num_passed} of {num_samples} samples pass", rate * (1 - rate))
