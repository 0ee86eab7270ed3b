"""Keyword precision and recall over multisets: how often each keyword occurs, not where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from lightning_audiorl.text.normalise import Normaliser


@dataclass(frozen=True)
class KeywordCounts:
    """Keyword occurrences of one or more utterances; add two to join them.

    Example:
        >>> counts = KeywordCounts(matched=1, in_reference=2, in_hypothesis=1)
        >>> counts.precision, counts.recall
        (1.0, 0.5)

    Args:
        matched: occurrences that both texts have.
        in_reference: occurrences in the reference.
        in_hypothesis: occurrences in the hypothesis.
    """

    matched: int = 0
    in_reference: int = 0
    in_hypothesis: int = 0

    def __add__(self, other: KeywordCounts) -> KeywordCounts:
        return KeywordCounts(
            self.matched + other.matched,
            self.in_reference + other.in_reference,
            self.in_hypothesis + other.in_hypothesis,
        )

    @property
    def precision(self) -> float | None:
        """Share of the hypothesis' keywords that were spoken; None without any in the hypothesis."""
        return self.matched / self.in_hypothesis if self.in_hypothesis else None

    @property
    def recall(self) -> float | None:
        """Share of the spoken keywords that the hypothesis has; None without any in the reference."""
        return self.matched / self.in_reference if self.in_reference else None


def count_occurrences(units: list[str], keyword: list[str]) -> int:
    """How often ``keyword`` stands in ``units``, without overlap, from the left.

    Example:
        >>> count_occurrences("a a a b".split(), ["a", "a"])
        1
    """
    n = len(keyword)
    if n == 0:
        return 0

    count = 0
    start = 0
    while start + n <= len(units):
        if units[start : start + n] == keyword:
            count += 1
            start += n
        else:
            start += 1
    return count


def keyword_units(keywords: Iterable[str], normaliser: Normaliser) -> list[list[str]]:
    """The keywords as units, each once; those that normalise to nothing are left out.

    Example:
        >>> from lightning_audiorl.text import WordNormaliser
        >>> keyword_units(["New York", "new york!", "..."], WordNormaliser())
        [['new', 'york']]
    """
    distinct = dict.fromkeys(tuple(normaliser.units(keyword)) for keyword in keywords)
    return [list(units) for units in distinct if units]


def count_keywords(
    reference: str, hypothesis: str, keywords: Iterable[str], normaliser: Normaliser
) -> KeywordCounts:
    """Count keywords in both texts and the multiset overlap.

    A keyword of several words counts where its words follow each other; in character languages that is a substring.
    Keywords that lie inside one another ("york", "new york") each count for themselves.

    Example:
        >>> from lightning_audiorl.text import WordNormaliser
        >>> count_keywords("New York, York!", "new york", ["york", "new york"], WordNormaliser())
        KeywordCounts(matched=2, in_reference=3, in_hypothesis=2)

    Args:
        reference: text, not normalised.
        hypothesis: text, not normalised.
        keywords: the vocabulary; duplicates count once.
        normaliser: of the row's language, applied to texts and keywords alike.
    """
    reference_units = normaliser.units(reference)
    hypothesis_units = normaliser.units(hypothesis)

    in_reference: Counter[int] = Counter()
    in_hypothesis: Counter[int] = Counter()
    for index, keyword in enumerate(keyword_units(keywords, normaliser)):
        in_reference[index] = count_occurrences(reference_units, keyword)
        in_hypothesis[index] = count_occurrences(hypothesis_units, keyword)

    matched = in_reference & in_hypothesis
    return KeywordCounts(matched.total(), in_reference.total(), in_hypothesis.total())
