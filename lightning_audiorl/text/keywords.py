"""Keyword precision and recall over multisets: how often each keyword is said, not where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from lightning_audiorl.text.normalise import Normaliser


@dataclass(frozen=True)
class KeywordCounts:
    """Keyword occurrences of one or more utterances; add two to join them."""

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
    """How often ``keyword`` stands in ``units``, without overlap, from the left."""
    count, i, n = 0, 0, len(keyword)
    while n and i + n <= len(units):
        found = units[i : i + n] == keyword
        count += found
        i += n if found else 1
    return count


def keyword_units(keywords: Iterable[str], normaliser: Normaliser) -> list[list[str]]:
    """The keywords as units, each once; those that normalise to nothing are left out."""
    distinct = dict.fromkeys(tuple(normaliser.units(keyword)) for keyword in keywords)
    return [list(units) for units in distinct if units]


def count_keywords(reference: str, hypothesis: str, keywords: Iterable[str], normaliser: Normaliser) -> KeywordCounts:
    """Count keywords in both texts and the multiset overlap.

    A keyword of several words counts where its words follow each other; in character languages that is a substring.
    Keywords that lie inside one another ("york", "new york") each count for themselves.

    Args:
        reference: text, not normalised.
        hypothesis: text, not normalised.
        keywords: the vocabulary; duplicates count once.
        normaliser: of the row's language, applied to texts and keywords alike.
    """
    spoken_units, said_units = normaliser.units(reference), normaliser.units(hypothesis)
    spoken: Counter[int] = Counter()
    said: Counter[int] = Counter()
    for index, keyword in enumerate(keyword_units(keywords, normaliser)):
        spoken[index] = count_occurrences(spoken_units, keyword)
        said[index] = count_occurrences(said_units, keyword)
    return KeywordCounts((spoken & said).total(), spoken.total(), said.total())
