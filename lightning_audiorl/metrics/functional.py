"""Recognition quality of one utterance, and of a set, by jiwer's alignment and not by the rewards' rules.

Rates are counted in the unit of the language: words, or characters of languages without spaces (see text.normalise).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import jiwer

from lightning_audiorl.text.compare import compared
from lightning_audiorl.text.errors import ErrorCounts
from lightning_audiorl.text.hallucination import is_respelled
from lightning_audiorl.text.keywords import keyword_units
from lightning_audiorl.text.normalise import Normaliser, Unit, normaliser_for, split_units
from lightning_audiorl.types import Hypothesis


@dataclass(frozen=True)
class Alignment:
    """How hypothesis units lie against reference units.

    Args:
        reference: R units.
        hypothesis: H units.
        hit_at: reference position -> hypothesis position of each hit.
        insertions: hypothesis units that stand against nothing.
        inserted_at: their positions.
        deleted_at: positions of reference units that stand against nothing.

    Example:
        >>> one = Alignment("a b c".split(), "a x b".split(), hit_at={0: 0, 1: 2}, insertions=1)
        >>> one.substitutions, one.deletions
        (0, 1)
    """

    reference: list[str]
    hypothesis: list[str]
    hit_at: dict[int, int]
    insertions: int
    inserted_at: tuple[int, ...] = ()
    deleted_at: tuple[int, ...] = ()

    @property
    def deletions(self) -> int:
        """Reference units that stand against nothing."""
        return len(self.reference) - len(self.hypothesis) + self.insertions

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def substitutions(self) -> int:
        """Hypothesis units that stand against another unit."""
        return len(self.hypothesis) - self.insertions - len(self.hit_at)


def align(reference: str, hypothesis: str, unit: Unit = "word") -> Alignment:
    """Align two normalised texts by jiwer (minimum edit distance).

    Args:
        reference: the text to match.
        hypothesis: the text that was written.
        unit: what is aligned, words or characters (spaces among them).

    Example:
        >>> align("one two three four", "one three four").hit_at
        {0: 0, 2: 1, 3: 2}
        >>> align("abc", "abd", "char").substitutions
        1
    """
    process = jiwer.process_words if unit == "word" else jiwer.process_characters
    hit_at: dict[int, int] = {}
    inserted_at: list[int] = []
    deleted_at: list[int] = []

    for chunk in process(reference, hypothesis).alignments[0]:
        if chunk.type == "equal":
            reference_positions = range(chunk.ref_start_idx, chunk.ref_end_idx)
            hypothesis_positions = range(chunk.hyp_start_idx, chunk.hyp_end_idx)
            hit_at |= zip(reference_positions, hypothesis_positions, strict=True)
        elif chunk.type == "insert":
            inserted_at += range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        elif chunk.type == "delete":
            deleted_at += range(chunk.ref_start_idx, chunk.ref_end_idx)

    return Alignment(
        split_units(reference, unit),
        split_units(hypothesis, unit),
        hit_at,
        len(inserted_at),
        tuple(inserted_at),
        tuple(deleted_at),
    )


def _repeats(units: list[str], period: int) -> list[range]:
    """Stretches of positions whose unit equals the one ``period`` before."""
    found: list[range] = []
    start: int | None = None

    # One position past the end, where a stretch that lasts to the end is closed.
    for i in range(period, len(units) + 1):
        same = i < len(units) and units[i] == units[i - period]
        if same and start is None:
            start = i
        elif not same and start is not None:
            found.append(range(start, i))
            start = None

    return found


def is_loop(alignment: Alignment, min_repeated: int = 4, max_period: int = 32) -> bool:
    """Whether the hypothesis goes round in a circle that the reference does not.

    It does where at least ``min_repeated`` units, and at least one whole period, repeat the units before them, more
    than the reference ever repeats at that period, and half of them or more are no hits.

    Args:
        alignment: of one utterance.
        min_repeated: units that a loop has at least besides its first turn.
        max_period: longest turn that is looked for, in units.

    Example:
        >>> is_loop(align("thank you", "thank you thank you thank you thank you"))
        True
        >>> is_loop(align("ha ha ha ha ha ha", "ha ha ha ha ha ha"))
        False
    """
    hits = set(alignment.hit_at.values())
    longest_period = min(max_period, len(alignment.hypothesis) // 2)

    for period in range(1, longest_period + 1):
        least = max(min_repeated, period)
        long = [
            stretch for stretch in _repeats(alignment.hypothesis, period) if len(stretch) >= least
        ]
        if not long:
            continue

        # Speech itself repeats ("no no no no"): only what goes beyond the reference is a loop.
        natural = max(map(len, _repeats(alignment.reference, period)), default=0)
        for stretch in long:
            mostly_wrong = 2 * len(hits.intersection(stretch)) <= len(stretch)
            if len(stretch) > natural and mostly_wrong:
                return True

    return False


def is_hallucination(alignment: Alignment, min_invented: int = 3) -> bool:
    """Whether the hypothesis holds text of its own making.

    Any text for an empty reference; or insertions of at least ``min_invented`` units and half the reference; or a text
    of at least ``min_invented`` units without one hit; or a loop.

    Args:
        alignment: of one utterance.
        min_invented: units.

    Example:
        >>> is_hallucination(align("", "thank you"))
        True
        >>> is_hallucination(align("turn left", "turn right"))
        False
    """
    if not alignment.reference:
        return bool(alignment.hypothesis)

    runaway = alignment.insertions >= max(min_invented, len(alignment.reference) / 2)
    unrelated = len(alignment.hypothesis) >= min_invented and not alignment.hit_at
    return runaway or unrelated or is_loop(alignment)


def aligned_keywords(
    alignment: Alignment,
    keywords: Iterable[list[str]],
) -> tuple[int, int, int]:
    """Keyword occurrences: (in the reference and hit in place, in the reference, in the hypothesis).

    Args:
        alignment: of one utterance.
        keywords: each as units (``text.keywords.keyword_units``).

    Example:
        >>> one = align("call new york and york", "call new york or york")
        >>> aligned_keywords(one, [["new", "york"], ["york"]])
        (3, 3, 3)
    """
    num_hits = 0
    num_in_reference = 0
    num_in_hypothesis = 0

    for keyword in keywords:
        in_reference = _occurrences(alignment.reference, keyword)
        num_in_reference += len(in_reference)
        num_in_hypothesis += len(_occurrences(alignment.hypothesis, keyword))

        # In place: all of its units are hits, and they stand side by side in the hypothesis too.
        for start in in_reference:
            places = [alignment.hit_at.get(start + k) for k in range(len(keyword))]
            first = places[0]
            if first is not None and places == list(range(first, first + len(keyword))):
                num_hits += 1

    return num_hits, num_in_reference, num_in_hypothesis


def _occurrences(units: list[str], keyword: list[str]) -> list[int]:
    """Where ``keyword`` begins in ``units``."""
    num = len(keyword)
    starts = range(len(units) - num + 1)
    return [i for i in starts if units[i : i + num] == keyword]


def biased_errors(alignment: Alignment, keywords: Iterable[list[str]]) -> ErrorCounts:
    """The edit counts of the units that are biased; those of the others are what is left of all counts.

    A unit is biased where it lies in an occurrence of a keyword: those of the reference count as hits, substitutions
    and deletions there, an inserted one where the hypothesis has the keyword. Over LibriSpeech's biasing lists, whose
    keywords are words that occur, this is how B-WER and U-WER are counted (arXiv:2104.02194).

    Args:
        alignment: of one utterance.
        keywords: each as units (``text.keywords.keyword_units``).

    Example:
        >>> one = align("call york today", "call cork today york")
        >>> biased_errors(one, [["york"]])
        ErrorCounts(hits=0, substitutions=1, deletions=0, insertions=1)
    """
    listed = list(keywords)
    in_reference = _positions(alignment.reference, listed)
    inserted = _positions(alignment.hypothesis, listed).intersection(alignment.inserted_at)

    hits = in_reference.intersection(alignment.hit_at)
    deletions = in_reference.intersection(alignment.deleted_at)
    return ErrorCounts(
        hits=len(hits),
        substitutions=len(in_reference) - len(hits) - len(deletions),
        deletions=len(deletions),
        insertions=len(inserted),
    )


def _positions(units: list[str], keywords: list[list[str]]) -> set[int]:
    """Where ``units`` lie in an occurrence of one of ``keywords``."""
    found: set[int] = set()
    for keyword in keywords:
        for start in _occurrences(units, keyword):
            found.update(range(start, start + len(keyword)))
    return found


@dataclass(frozen=True)
class UtteranceCounts:
    """What one utterance adds to the rates of a set; all fields are sums over utterances.

    Fields named ``words`` count units of the language. ``characters`` and ``character_errors`` include the spaces of
    normalised text, as CER commonly does. Nonspeech fields count only utterances with an empty reference, ``rated``
    only those with another, whose own error rates ``rates`` sums.

    Example:
        >>> UtteranceCounts(utterances=2, words=7).values()[:3]
        [2.0, 7.0, 0.0]
    """

    utterances: float = 0
    words: float = 0
    hypothesis_words: float = 0
    hits: float = 0
    substitutions: float = 0
    deletions: float = 0
    insertions: float = 0
    characters: float = 0
    character_errors: float = 0
    exact: float = 0
    hallucinated: float = 0
    loops: float = 0
    unfinished: float = 0
    keyword_hits: float = 0
    keywords: float = 0
    hypothesis_keywords: float = 0
    biased_words: float = 0
    biased_errors: float = 0
    rated: float = 0
    rates: float = 0
    nonspeech: float = 0
    nonspeech_texts: float = 0
    nonspeech_words: float = 0
    nonspeech_s: float = 0
    audio_s: float = 0
    compute_s: float = 0

    def values(self) -> list[float]:
        """The fields in order, for a tensor."""
        return [float(getattr(self, field.name)) for field in fields(self)]


def utterance_counts(
    hypothesis: Hypothesis,
    normalisers: Mapping[str, Normaliser] | None = None,
    keywords: Iterable[str] = (),
) -> UtteranceCounts:
    """Count everything about one utterance.

    Args:
        hypothesis: decoded text with its row.
        normalisers: by language code, in place of the built-in table.
        keywords: looked for in every row, beside ``row.keywords``.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> row = Utterance("a", (), text="turn left at York", duration_s=1.5, lang="en")
        >>> counts = utterance_counts(Hypothesis(row, "Turn at York!"), keywords=["York"])
        >>> counts.words, counts.hits, counts.deletions, counts.keyword_hits
        (4, 3, 1, 1)
    """
    row = hypothesis.row
    normaliser = normaliser_for(row.lang, normalisers)
    reference, text = compared(row.text, hypothesis.text, normaliser)

    alignment = align(reference, text, normaliser.unit)
    characters = align(reference, text, "char")

    vocabulary = keyword_units((*keywords, *row.keywords), normaliser)
    keyword_hits, reference_keywords, hypothesis_keywords = aligned_keywords(alignment, vocabulary)

    biased = biased_errors(alignment, vocabulary)

    # Kana for characters have no hit, yet nothing of them is invented.
    respelled = is_respelled(row.lang, alignment.reference, alignment.hypothesis)

    nonspeech = not reference
    return UtteranceCounts(
        utterances=1,
        # Alignment in the unit of the language.
        words=len(alignment.reference),
        hypothesis_words=len(alignment.hypothesis),
        hits=len(alignment.hit_at),
        substitutions=alignment.substitutions,
        deletions=alignment.deletions,
        insertions=alignment.insertions,
        # Characters, whatever the unit.
        characters=len(reference),
        character_errors=characters.errors,
        # The utterance as a whole.
        exact=reference == text,
        hallucinated=is_hallucination(alignment) and not respelled,
        loops=is_loop(alignment),
        unfinished=not hypothesis.finished,
        # Keywords, as multisets.
        keyword_hits=keyword_hits,
        keywords=reference_keywords,
        hypothesis_keywords=hypothesis_keywords,
        # Errors in them, as units.
        biased_words=biased.reference_length,
        biased_errors=biased.errors,
        # The utterance's own rate, whatever its length.
        rated=not nonspeech,
        rates=_ratio(alignment.errors, len(alignment.reference)) if reference else 0.0,
        # Only where nothing is spoken; a rate over these alone.
        nonspeech=nonspeech,
        nonspeech_texts=nonspeech and bool(text),
        nonspeech_words=len(alignment.hypothesis) if nonspeech else 0,
        nonspeech_s=row.duration_s if nonspeech else 0.0,
        audio_s=row.duration_s,
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def asr_rates(counts: UtteranceCounts) -> dict[str, float]:
    """The metrics of a set from its sums; NaN where the set says nothing about a metric (never infinite).

    Insertions on utterances with an empty reference count in ``wer``, ``insertion_rate`` and ``length_ratio``;
    a set of such utterances alone has no error rates. A keyword precision or recall without occurrences is NaN; F1
    counts a lone side as 0. ``real_time_factor`` is NaN when no compute time was given. ``b_wer`` and ``u_wer``, the
    error rates of words in keywords and of all others, are there where any text of the set has a keyword.

    Args:
        counts: added up over the utterances of the set.

    Example:
        >>> rates = asr_rates(UtteranceCounts(utterances=1, words=4, hits=3, deletions=1, characters=16))
        >>> rates["wer"], rates["correct_rate"], rates["keyword_f1"]
        (0.25, 0.75, nan)
    """
    c = counts
    errors = c.substitutions + c.deletions + c.insertions

    # Without a time the ratio would be 0, which reads as infinitely fast.
    real_time_factor = _ratio(c.compute_s, c.audio_s) if c.compute_s else math.nan

    return {
        # Shares of the reference.
        "wer": _ratio(errors, c.words),
        "cer": _ratio(c.character_errors, c.characters),
        "substitution_rate": _ratio(c.substitutions, c.words),
        "insertion_rate": _ratio(c.insertions, c.words),
        "deletion_rate": _ratio(c.deletions, c.words),
        "correct_rate": _ratio(c.hits, c.words),
        # Shares of the utterances.
        "exact_match": _ratio(c.exact, c.utterances),
        "hallucination_rate": _ratio(c.hallucinated, c.utterances),
        "loop_rate": _ratio(c.loops, c.utterances),
        # Keywords by occurrence.
        "keyword_precision": _ratio(c.keyword_hits, c.hypothesis_keywords),
        "keyword_recall": _ratio(c.keyword_hits, c.keywords),
        "keyword_f1": _ratio(2 * c.keyword_hits, c.keywords + c.hypothesis_keywords),
        # What runs on, or falls silent.
        "length_ratio": _ratio(c.hypothesis_words, c.words),
        # Of utterances in which nothing is spoken.
        "nonspeech_text_rate": _ratio(c.nonspeech_texts, c.nonspeech),
        "nonspeech_words_per_minute": _ratio(60 * c.nonspeech_words, c.nonspeech_s),
        # Of decoding.
        "unfinished_rate": _ratio(c.unfinished, c.utterances),
        "real_time_factor": real_time_factor,
        "num_utterances": c.utterances,
        "num_reference_words": c.words,
        **(_biased_rates(c, errors) if c.keywords or c.hypothesis_keywords else {}),
    }


def _biased_rates(c: UtteranceCounts, errors: float) -> dict[str, float]:
    """The error rate of the words in keywords, and that of all others."""
    return {
        "b_wer": _ratio(c.biased_errors, c.biased_words),
        "u_wer": _ratio(errors - c.biased_errors, c.words - c.biased_words),
    }
