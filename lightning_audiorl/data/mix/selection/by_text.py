"""Subsets by the words of the reference: repeated phrases, keywords and rare words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from lightning_audiorl.data.mix.selection.base import (
    Candidate,
    SubsetBuilder,
    Verdict,
    removed,
    unit_of,
    units_of,
)
from lightning_audiorl.text.keywords import count_occurrences
from lightning_audiorl.types import Utterance

Phrase = tuple[str, ...]


def _joined(phrase: Phrase, lang: str) -> str:
    """The phrase as it is written in its language."""
    space = " " if unit_of(lang) == "word" else ""
    return space.join(phrase)


def repeated_phrase(units: list[str], n: int) -> tuple[Phrase, int]:
    """The phrase of ``n`` units that stands most often without overlap, and how often; the earliest among equals.

    Example:
        >>> repeated_phrase("a b c a b".split(), n=2)
        (('a', 'b'), 2)
        >>> repeated_phrase(["a"], n=2)
        ((), 0)
    """
    phrases = list(zip(*(units[i:] for i in range(n)), strict=False))
    if not phrases:
        return (), 0
    # In most sentences no phrase stands twice.
    if len(set(phrases)) == len(phrases):
        return phrases[0], 1

    counts: Counter[Phrase] = Counter()
    # Where the next occurrence of a phrase may begin, so that "a a a" holds "a a" once.
    free_from: dict[Phrase, int] = {}
    for i, phrase in enumerate(phrases):
        if i >= free_from.get(phrase, 0):
            counts[phrase] += 1
            free_from[phrase] = i + n

    return max(counts.items(), key=lambda item: item[1], default=((), 0))


def phrase_said_again(units: list[str], n: int) -> tuple[Phrase, int]:
    """Of the phrases of ``n`` or more units that stand back to back, the one with most repeated units, and how often.

    Example:
        >>> phrase_said_again("x a b a b a b y".split(), n=2)
        (('a', 'b'), 3)
        >>> phrase_said_again("a b c".split(), n=2)
        ((), 0)
    """
    best: tuple[Phrase, int] = ((), 0)
    most = 0
    for size in range(n, len(units) // 2 + 1):
        # A run of `same` units, each equal to the one `size` before it, holds same // size further copies of a phrase.
        same = 0
        for i in range(len(units) - size):
            is_same = units[i] == units[i + size]
            same = same + 1 if is_same else 0
            repeated = same - same % size
            if repeated > most:
                most = repeated
                start = i + 1 - same
                best = (tuple(units[start : start + size]), 1 + same // size)
    return best


class RepeatedPhrases(SubsetBuilder):
    """Long sentences that say a phrase more than once (the second half of D1): a recogniser that loops passes unseen.

    The larger the share of words that repeat a phrase, the earlier the row comes.

    Args:
        num_rows: most rows kept; none keeps all.
        min_words: fewest words of the sentence (characters in languages without spaces).
        phrase_words: fewest words of the phrase.
        where: anywhere in the sentence, or back_to_back.

    Example:
        >>> apart = Candidate(0, Utterance("a", (), "one two three one two four", 3.0))
        >>> RepeatedPhrases(min_words=6).judge(apart).reason
        '"one two" said 2 times in 6 words'
        >>> RepeatedPhrases(min_words=6, where="back_to_back").judge(apart).reason
        'no repeated phrase'
    """

    def __init__(
        self,
        num_rows: int | None = None,
        min_words: int = 8,
        phrase_words: int = 2,
        where: Literal["anywhere", "back_to_back"] = "anywhere",
    ) -> None:
        super().__init__(num_rows)
        if phrase_words < 1 or min_words < 2 * phrase_words:
            raise ValueError(
                "RepeatedPhrases: want phrase_words >= 1 and min_words >= 2 * phrase_words; got "
                f"{phrase_words=}, {min_words=}"
            )
        if where not in ("anywhere", "back_to_back"):
            raise ValueError(
                f"RepeatedPhrases: where must be anywhere or back_to_back, got {where!r}"
            )

        self.min_words = min_words
        self.phrase_words = phrase_words
        self.where = where

    def judge(self, candidate: Candidate) -> Verdict:
        row = candidate.row
        units = units_of(row.text, row.lang)
        if len(units) < self.min_words:
            return removed(f"shorter than {self.min_words} words")

        # A phrase that is not said twice anywhere is not said twice in a row either.
        phrase, times = repeated_phrase(units, self.phrase_words)
        if times > 1 and self.where == "back_to_back":
            phrase, times = phrase_said_again(units, self.phrase_words)
        if times < 2:
            return removed("no repeated phrase")

        quoted = _joined(phrase, row.lang)
        reason = f'"{quoted}" said {times} times in {len(units)} words'
        num_repeated = len(phrase) * (times - 1)
        return Verdict(True, reason, priority=num_repeated / len(units))


class _Keywords:
    """Keywords of one language, found by their first unit."""

    def __init__(self, keywords: Iterable[str], lang: str) -> None:
        self._by_first: dict[str, list[Phrase]] = defaultdict(list)
        # Two keywords may be one when they are normalised.
        distinct = dict.fromkeys(tuple(units_of(keyword, lang)) for keyword in keywords)
        for units in distinct:
            if units:
                self._by_first[units[0]].append(units)
        self._firsts = frozenset(self._by_first)

    def count(self, units: list[str]) -> dict[Phrase, int]:
        """How often each keyword that is there stands in ``units``."""
        # Of thousands of keywords, only those whose first unit is there are looked for.
        counts: dict[Phrase, int] = {}
        if self._firsts.isdisjoint(units):
            return counts
        for first in self._firsts.intersection(units):
            for keyword in self._by_first[first]:
                count = count_occurrences(units, list(keyword))
                if count:
                    counts[keyword] = count
        return counts


class KeywordHeavy(SubsetBuilder):
    """Rows full of keywords (D3): those of a list, those that rows name, or rare words found by their frequency.

    The most keywords per word come first. ``KeywordHeavy(rare_below=3, min_length=4)`` also counts words of four and
    more letters that the whole stream says at most three times; for this the stream is read once before, and the count
    of each distinct word is held in memory (about 100 bytes a word: a vocabulary grows far slower than its rows).

    Args:
        num_rows: most rows kept; none keeps all.
        keywords: the list.
        row_keywords: whether the row's own ``keywords`` count too.
        rare_below: a word is rare when it is said at most this often (1 or more), or makes up at most this share of
            all words (below 1); none: rare words do not count.
        min_length: fewest letters of a rare word.
        min_keywords: fewest keywords in the reference; one said twice counts twice.

    Example:
        >>> row = Utterance("a", (), "from oslo to new york", 2.0)
        >>> verdict = KeywordHeavy(keywords=["new york", "oslo"], min_keywords=2).judge(Candidate(0, row))
        >>> verdict.reason, verdict.priority
        ('keywords: 2 in 5 words (new york, oslo)', 0.4)
    """

    # Words that are too short, or said too often, to be rare: found when the survey is over. No setting, so it is none
    # of the attributes that a mix is known by.
    _plain: frozenset[str] | None = None

    def __init__(
        self,
        num_rows: int | None = None,
        keywords: Sequence[str] = (),
        row_keywords: bool = True,
        rare_below: float | None = None,
        min_length: int = 4,
        min_keywords: int = 1,
    ) -> None:
        super().__init__(num_rows)

        if isinstance(keywords, str) or not all(isinstance(word, str) for word in keywords):
            raise ValueError(f"KeywordHeavy: keywords must be a list of words, got {keywords!r}")
        if not keywords and not row_keywords and rare_below is None:
            raise ValueError(
                "KeywordHeavy: no keywords; give keywords, row_keywords: true, or rare_below"
            )
        if rare_below is not None and not rare_below > 0:
            raise ValueError(
                f"KeywordHeavy: want rare_below > 0 (a count, or a share below 1), got {rare_below}"
            )
        if min_length < 1 or min_keywords < 1:
            raise ValueError(
                f"KeywordHeavy: want min_length, min_keywords >= 1; got {min_length}, {min_keywords}"
            )

        self.keywords = tuple(keywords)
        self.row_keywords = row_keywords
        self.rare_below = rare_below
        self.min_length = min_length
        self.min_keywords = min_keywords
        self.surveys = rare_below is not None

        # The list by language, as each language normalises it in its own way.
        self._lists: dict[str, _Keywords] = {}
        # What the survey found: how often each word is said, and how many words in all.
        self._said: Counter[str] = Counter()
        self._num_said = 0

    def survey(self, candidate: Candidate) -> None:
        units = units_of(candidate.row.text, candidate.row.lang)
        self._said.update(units)
        self._num_said += len(units)
        self._plain = None

    def _rare(self, units: list[str]) -> dict[Phrase, int]:
        """The rare words among ``units``, each with how often it stands there."""
        if self.rare_below is None:
            return {}
        if self._plain is None:
            self._plain = self._not_rare(self.rare_below)

        # Most sentences have no others, which a set says at once.
        others = set(units) - self._plain
        if not others:
            return {}
        rare = [(unit,) for unit in units if unit in others and len(unit) >= self.min_length]
        return Counter(rare) if rare else {}

    def _not_rare(self, rare_below: float) -> frozenset[str]:
        """The words of the survey that are too short, or said too often, to be rare."""
        # A count, or a share of all words.
        most = rare_below if rare_below >= 1 else rare_below * self._num_said
        length = self.min_length
        words = [word for word, said in self._said.items() if said > most or len(word) < length]
        return frozenset(words)

    def found(self, row: Utterance) -> dict[Phrase, int]:
        """The keywords in a row's reference, each with how often it is said there."""
        units = units_of(row.text, row.lang)
        if row.lang not in self._lists:
            self._lists[row.lang] = _Keywords(self.keywords, row.lang)

        found = {**self._rare(units), **self._lists[row.lang].count(units)}
        if self.row_keywords and row.keywords:
            found |= _Keywords(row.keywords, row.lang).count(units)
        return found

    def judge(self, candidate: Candidate) -> Verdict:
        row = candidate.row
        found = self.found(row)
        num_keywords = sum(found.values())
        if num_keywords < self.min_keywords:
            return removed(f"keywords below {self.min_keywords}")

        num_words = len(units_of(row.text, row.lang))
        names = sorted(_joined(keyword, row.lang) for keyword in found)
        if len(names) > 5:
            names = [*names[:5], "..."]
        reason = f"keywords: {num_keywords} in {num_words} words ({', '.join(names)})"
        return Verdict(True, reason, num_keywords / num_words)
