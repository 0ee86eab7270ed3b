"""Subsets by what models made of a row: disagreement, hallucinations, a pass rate between bounds, nothing right."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar, Literal

from lightning_audiorl.checks import check_number
from lightning_audiorl.data.mix.selection.base import (
    Candidate,
    SubsetBuilder,
    Verdict,
    normalised,
    removed,
    unit_of,
)
from lightning_audiorl.data.mix.selection.hypothesis_choice import (
    HypothesisChoice,
    pass_rate_verdict,
)
from lightning_audiorl.text.errors import symmetric_unit_rate
from lightning_audiorl.text.normalise import split_units

#: What is decided on rows by the million.
_NO_RULE = Verdict(False, "no rule fired")


def disagreement(texts: Sequence[str], lang: str) -> float:
    """Mean pairwise error rate between hypotheses, from 0 (all the same) to 1 (nothing in common).

    Edits between two normalised texts over the length of the longer, in words, or characters in languages without
    spaces; so neither of two is the reference. Two empty texts agree.

    Example: (0 + 0.5 + 0.5) / 3.
        >>> round(disagreement(["a b", "a b", "a c"], lang="en"), 4)
        0.3333
    """
    # Samples often are the same text: each pair of distinct ones is compared once.
    if len(set(texts)) == 1:
        return 0.0
    copies: dict[str, int] = {}
    for text in texts:
        same = normalised(text, lang)
        copies[same] = copies.get(same, 0) + 1
    num_pairs = len(texts) * (len(texts) - 1) // 2
    total = 0.0
    if len(copies) == 1:
        return 0.0
    unit = unit_of(lang)
    split = [(split_units(text, unit), count) for text, count in copies.items()]
    for (one, one_count), (other, other_count) in combinations(split, 2):
        total += one_count * other_count * symmetric_unit_rate(one, other)
    return total / num_pairs


class Hard(SubsetBuilder):
    """Rows whose hypotheses disagree (D1): samples of one model, or the outputs of several.

    Example: samples "a b", "a b", "a c" disagree by 0.33 (see `disagreement`); ``Hard(min_disagreement=0.1)`` keeps the
    row, ahead of every row that disagrees less.

    Args:
        num_rows: most rows kept; none keeps all.
        across: samples: all of one model; models: the first one of each model.
        min_disagreement: least mean pairwise error rate, 0 to 1.
        max_disagreement: above it a row counts as garbage (a wrong reference, no speech) and is left out.
        decodings: look at these decodings only, by name; none: at all.
        model: whose samples, where files of several models are given.
    """

    needs_hypotheses: ClassVar[bool] = True

    def __init__(
        self,
        num_rows: int | None = None,
        across: Literal["samples", "models"] = "samples",
        min_disagreement: float = 0.1,
        max_disagreement: float = 0.8,
        decodings: Sequence[str] | None = None,
        model: str | None = None,
    ) -> None:
        super().__init__(num_rows)

        if across not in ("samples", "models"):
            raise ValueError(f"Hard: across must be samples or models, got {across!r}")
        if across == "models" and model is not None:
            raise ValueError(f"Hard: across models compares all of them; leave model={model!r} out")

        if not 0 < min_disagreement <= max_disagreement <= 1:
            raise ValueError(
                f"Hard: want 0 < min_disagreement <= max_disagreement <= 1; got {min_disagreement}, {max_disagreement}"
            )

        self.across = across
        self.min_disagreement = min_disagreement
        self.max_disagreement = max_disagreement
        self._choice = HypothesisChoice("Hard", decodings, model, min_samples=2)

    def judge(self, candidate: Candidate) -> Verdict:
        if self.across == "models":
            samples = self._choice.of_models(candidate)
        else:
            samples = self._choice.of_one_model(candidate)

        found = disagreement([sample.text for sample in samples], candidate.row.lang)
        if found < self.min_disagreement:
            return removed(f"disagreement below {self.min_disagreement:g}")
        if found > self.max_disagreement:
            return removed(f"disagreement above {self.max_disagreement:g}")

        reason = f"disagreement {found:.2f} between {len(samples)} {self.across}"
        return Verdict(True, reason, priority=found)


class Hallucinating(SubsetBuilder):
    """Rows on which the policy's own hypotheses hallucinate: rules fire in a share of its samples.

    Example: of four samples one fired loop, one runaway_length and one both -> rate 0.75; with ``rules=["loop"]`` it is
    0.5. The highest rates come first.

    Args:
        num_rows: most rows kept; none keeps all.
        min_rate: least share of samples in which a rule fired.
        rules: names of the rules that count; none: any rule that was asked when predicting.
        decodings: look at these decodings only, by name; none: at all.
        model: whose samples, where files of several models are given.
        min_samples: fewest samples a row must have.
    """

    needs_hypotheses: ClassVar[bool] = True

    def __init__(
        self,
        num_rows: int | None = None,
        min_rate: float = 0.25,
        rules: Sequence[str] | None = None,
        decodings: Sequence[str] | None = None,
        model: str | None = None,
        min_samples: int = 1,
    ) -> None:
        super().__init__(num_rows)

        if not 0 < min_rate <= 1 or min_samples < 1:
            raise ValueError(
                f"Hallucinating: want 0 < min_rate <= 1, min_samples >= 1; got {min_rate}, {min_samples}"
            )
        if rules is not None and (isinstance(rules, str) or not rules):
            raise ValueError(
                f"Hallucinating: rules must be a list of one or more names, got {rules!r}"
            )

        self.min_rate = min_rate
        self.rules = None if rules is None else frozenset(rules)
        self._choice = HypothesisChoice("Hallucinating", decodings, model, min_samples)

    def judge(self, candidate: Candidate) -> Verdict:
        samples = self._choice.of_one_model(candidate)
        # Of most rows no sample has any.
        if not any(sample.rules for sample in samples):
            return _NO_RULE

        num_fired = 0
        names: set[str] = set()
        for sample in samples:
            fired = [rule for rule in sample.rules if self.rules is None or rule in self.rules]
            num_fired += bool(fired)
            names.update(fired)

        rate = num_fired / len(samples)
        if rate == 0:
            return removed("no rule fired")
        if rate < self.min_rate:
            return removed(f"hallucination rate below {self.min_rate:g}")
        listed = ", ".join(sorted(names))
        reason = f"hallucination rate {rate:.2f} over {len(samples)} samples ({listed})"
        return Verdict(True, reason, rate)


class Learnable(SubsetBuilder):
    """Rows that the policy gets right sometimes: their groups will have reward variance.

    A sample passes when its error rate is at most ``max_error_rate``; the row stays when its pass rate p lies strictly
    between the bounds. Rows with the largest p (1 - p) come first.

    Example: 1 of 4 samples passes -> p = 0.25, priority 0.19; 0 of 4 and 4 of 4 are left out.

    Args:
        num_rows: most rows kept; none keeps all.
        low: pass rate must be above it.
        high: pass rate must be below it.
        max_error_rate: most errors per reference word (or character) in a sample that passes.
        decodings: look at these decodings only, by name (sampled ones, if greedy ones are there too); none: at all.
        model: whose samples, where files of several models are given.
        min_samples: fewest samples a row must have.
    """

    needs_hypotheses: ClassVar[bool] = True

    def __init__(
        self,
        num_rows: int | None = None,
        low: float = 0.0,
        high: float = 1.0,
        max_error_rate: float = 0.0,
        decodings: Sequence[str] | None = None,
        model: str | None = None,
        min_samples: int = 2,
    ) -> None:
        super().__init__(num_rows)

        check_number("Learnable.max_error_rate", max_error_rate)
        if not 0 <= low < high <= 1 or max_error_rate < 0 or min_samples < 2:
            raise ValueError(
                "Learnable: want 0 <= low < high <= 1, max_error_rate >= 0, min_samples >= 2; got "
                f"{low=}, {high=}, {max_error_rate=}, {min_samples=}"
            )

        self.low = low
        self.high = high
        self.max_error_rate = max_error_rate
        self._choice = HypothesisChoice("Learnable", decodings, model, min_samples)

    def judge(self, candidate: Candidate) -> Verdict:
        samples = self._choice.of_one_model(candidate)
        num_passed = sum(sample.errors.rate <= self.max_error_rate for sample in samples)
        return pass_rate_verdict(num_passed, len(samples), self.low, self.high)


class RarelyRight(SubsetBuilder):
    """Rows whose right answer the policy hardly ever samples: `losses.ReferenceSample` and SFT are for them.

    A row stays where its reference is less probable than ``max_reference_logprob``, and, with ``nothing_right``, where
    none of its hypotheses is right. The least probable references come first. A log-probability is that of the whole
    text: it falls with the text's length, so a bound suits rows of like length, such as those without text.

    Example: nothing is said in a row, and the model finds the empty answer as probable as exp(-6.3) = .0018:
    ``RarelyRight(max_reference_logprob=-2.3)`` keeps it, as it keeps all whose right answer comes less than one time in
    ten.

    Args:
        num_rows: most rows kept; none keeps all.
        max_reference_logprob: a reference below it is rarely sampled, in nats; none: its probability does not matter.
        nothing_right: whether a row of which no hypothesis is right stays as well.
        max_error_rate: most errors per reference word (or character) in a hypothesis that is right.
        decodings: look at these decodings only, by name; none: at all.
        model: whose hypotheses, where files of several models are given.
        min_samples: fewest samples a row must have, with ``nothing_right``.
    """

    needs_hypotheses: ClassVar[bool] = True

    def __init__(
        self,
        num_rows: int | None = None,
        max_reference_logprob: float | None = None,
        nothing_right: bool = False,
        max_error_rate: float = 0.0,
        decodings: Sequence[str] | None = None,
        model: str | None = None,
        min_samples: int = 2,
    ) -> None:
        super().__init__(num_rows)

        if max_reference_logprob is None and not nothing_right:
            raise ValueError(
                "RarelyRight: give max_reference_logprob (such as -2.3, one time in ten), nothing_right, or both"
            )
        if max_reference_logprob is not None:
            check_number("RarelyRight.max_reference_logprob", max_reference_logprob, at_most=0)
        check_number("RarelyRight.max_error_rate", max_error_rate, at_least=0)
        if min_samples < 1:
            raise ValueError(f"RarelyRight: want min_samples >= 1, got {min_samples}")

        self.max_reference_logprob = max_reference_logprob
        self.nothing_right = nothing_right
        self.max_error_rate = max_error_rate
        self._choice = HypothesisChoice("RarelyRight", decodings, model, min_samples)

    def judge(self, candidate: Candidate) -> Verdict:
        log_prob = self._choice.line_of(candidate).reference_logprob
        known = 0.0 if log_prob is None else log_prob

        if self.max_reference_logprob is not None:
            if log_prob is None and not self.nothing_right:
                raise self._choice.error(
                    candidate,
                    "has no reference_logprob: it was not measured, or the model has no tokens for the text; run "
                    "`audiorl predict` with `--reference_logprob true`, or leave the row out",
                )
            if known < self.max_reference_logprob:
                return Verdict(True, f"log-probability of the reference {known:.2f}", -known)

        if not self.nothing_right:
            return removed(f"reference at {self.max_reference_logprob:g} or above")
        samples = self._choice.of_one_model(candidate)
        if any(sample.errors.rate <= self.max_error_rate for sample in samples):
            return removed("some hypothesis is right")
        return Verdict(True, f"none of {len(samples)} hypotheses is right", -known)
