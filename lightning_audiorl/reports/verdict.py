"""What a run has achieved, in a sentence: what improved, what did not, by how much, on what, against what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_audiorl.reports.comparison import Difference, Judgement, SetComparison

#: By these a set is judged; the first that it has decides, of speech both error rates do.
_HEADLINES = (("cer", "held_out_cer"), ("wer",), ("nonspeech_text_rate",), ("hallucination_rate",))

#: In the order in which they are said, and how the sentence says them.
JUDGEMENT_WORDS: dict[Judgement, str] = {
    "better": "better",
    "worse": "worse",
    "unchanged": "no change beyond chance",
    "unknown": "change without an interval",
}


@dataclass(frozen=True)
class Finding:
    """What is said of a set by one of its metrics.

    Args:
        difference: of the metric.
        size: of the set, in words.
        note: why there is no interval.
    """

    difference: Difference
    size: str
    note: str = ""

    @property
    def text(self) -> str:
        """Such as ``WER of dev 40.0 → 30.0 % (...)``."""
        one = self.difference
        return f"{one.name} of {one.set_name} {one.text} on {self.size}"


@dataclass(frozen=True)
class Verdict:
    """Findings about one comparison.

    Args:
        against: what the run is compared with, such as "the start".
        findings: in the order of the sets.
    """

    against: str
    findings: Sequence[Finding]

    def of(self, judgement: Judgement) -> list[Finding]:
        """The findings of a kind."""
        return [one for one in self.findings if one.difference.judgement == judgement]

    @property
    def headline(self) -> str:
        """The shortest answer, such as ``Better in 2 of 4 comparisons with the start, worse in none``."""
        num_better = len(self.of("better"))
        num_worse = len(self.of("worse"))
        num = len(self.findings)
        if not num:
            return f"Nothing was measured to compare with {self.against}"
        if len(self.of("unknown")) == num:
            return f"No interval: whether anything differs from {self.against} is not known"
        if not num_better and not num_worse:
            return f"No change beyond chance against {self.against}"

        better = f"better in {num_better} of {num}" if num_better else f"better in none of {num}"
        worse = f"worse in {num_worse}" if num_worse else "worse in none"
        return f"Against {self.against}: {better}, {worse}"

    @property
    def sentence(self) -> str:
        """All of it, for the terminal."""
        if not self.findings:
            return f"{self.headline}."
        clauses = []
        for judgement, words in JUDGEMENT_WORDS.items():
            found = self.of(judgement)
            if found:
                clauses.append(f"{words}: {', and '.join(one.text for one in found)}")
        if not self.of("better"):
            clauses.insert(0, "nothing is better beyond chance")
        return f"Against {self.against}: {'; '.join(clauses)}."


def verdict(sets: Sequence[SetComparison], against: str) -> Verdict:
    """Judge a comparison by the headline metrics of each set.

    Args:
        sets: of `compare_rows`; where some have rows, those without them, such as other decodings, are left out.
        against: what the run is compared with.

    Example:
        >>> from lightning_audiorl.reports.bootstrap import Interval
        >>> one = Difference("dev", "wer", Interval(0.4), Interval(0.3), Interval(-0.1, -0.14, -0.06))
        >>> print(verdict([SetComparison("dev", 200, 1432, "words", {"wer": one})], "the start").sentence)
        Against the start: better: WER of dev 40.0 → 30.0 % (-10.0 points, 95 % interval -14.0 to -6.0) on 200
        utterances, 1,432 words.
    """
    names = [one.name for one in sets]
    findings = []
    for one in sets:
        # "<set>/<decoding>": the same rows once more.
        if any(one.name.startswith(f"{name}/") for name in names):
            continue
        for difference in headline_metrics(one):
            findings.append(Finding(difference, one.size, one.note))
    return Verdict(against, findings)


def headline_metrics(one: SetComparison) -> list[Difference]:
    """The metrics by which a set is judged.

    Args:
        one: the set.
    """
    is_speech = "missing_stop_rate" in one.differences
    for names in _HEADLINES:
        if names[0] == "cer" and not is_speech:
            continue
        found = [one.differences[name] for name in names if name in one.differences]
        known = [difference for difference in found if not math.isnan(difference.after.value)]
        if known:
            return known
    # An evaluation of somebody's own.
    return [each for each in one.differences.values() if each.spec.better in ("lower", "higher")][
        :1
    ]
