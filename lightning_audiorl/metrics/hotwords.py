"""What lists of words in the prompt do: keyword recall by the list that a row has; listed words that nobody said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from lightning_audiorl.metrics.functional import UtteranceCounts
from lightning_audiorl.text.compare import compared_units
from lightning_audiorl.text.keywords import count_occurrences, keyword_units
from lightning_audiorl.text.normalise import Normaliser, normaliser_for
from lightning_audiorl.types import Hypothesis


@dataclass(frozen=True)
class HotwordCounts:
    """Sums over utterances, by the list that their prompt had: right, with a word of it said; wrong; or none.

    Args:
        right_hits, right: keywords that were written in place, and that were said, of rows with the right list.
        wrong_hits, wrong: of rows whose list has none of the words that are said.
        none_hits, none: of rows without a list.
        lists: rows whose list has a word that is not said.
        false_alarms: those of them whose hypothesis has such a word.
    """

    right_hits: float = 0
    right: float = 0
    wrong_hits: float = 0
    wrong: float = 0
    none_hits: float = 0
    none: float = 0
    lists: float = 0
    false_alarms: float = 0

    def values(self) -> list[float]:
        """The fields in order, for a tensor."""
        return [float(getattr(self, field.name)) for field in fields(self)]


def hotword_counts(
    hypothesis: Hypothesis,
    counts: UtteranceCounts,
    normalisers: Mapping[str, Normaliser] | None = None,
) -> HotwordCounts:
    """What one utterance adds.

    Args:
        hypothesis: decoded text with its row.
        counts: of the same hypothesis: its keywords are counted there.
        normalisers: by language code, in place of the built-in table.

    Example: "victor" is listed and written, though "anna" was said.
        >>> from lightning_audiorl.metrics.functional import utterance_counts
        >>> from lightning_audiorl.types import Utterance
        >>> row = Utterance("a", (), "call anna", 1.0, keywords=("anna",), extra={"hotwords": ["anna", "victor"]})
        >>> one = Hypothesis(row, "call victor")
        >>> counts = hotword_counts(one, utterance_counts(one))
        >>> counts.right_hits, counts.right, counts.false_alarms
        (0, 1, True)
    """
    row = hypothesis.row
    if not row.hotwords:
        return HotwordCounts(none_hits=counts.keyword_hits, none=counts.keywords)

    normaliser = normaliser_for(row.lang, normalisers)
    reference, written = compared_units(row.text, hypothesis.text, normaliser)
    said: list[list[str]] = []
    unsaid: list[list[str]] = []
    for word in keyword_units(row.hotwords, normaliser):
        (said if count_occurrences(reference, word) else unsaid).append(word)

    alarm = any(count_occurrences(written, word) for word in unsaid)
    if said:
        return HotwordCounts(
            right_hits=counts.keyword_hits,
            right=counts.keywords,
            lists=bool(unsaid),
            false_alarms=alarm,
        )
    return HotwordCounts(
        wrong_hits=counts.keyword_hits, wrong=counts.keywords, lists=1, false_alarms=alarm
    )


def hotword_rates(counts: HotwordCounts) -> dict[str, float]:
    """Metrics of a set from its sums, NaN where the set says nothing about one; none of a set without any list.

    Args:
        counts: added up over the utterances of the set.

    Example:
        >>> hotword_rates(HotwordCounts(none_hits=1, none=2))
        {}
        >>> rates = hotword_rates(HotwordCounts(right_hits=3, right=4, lists=2, false_alarms=1))
        >>> rates["hotword_recall"], rates["hotword_recall_wrong"], rates["hotword_false_alarm_rate"]
        (0.75, nan, 0.5)
    """
    c = counts
    if not (c.right or c.wrong or c.lists):
        return {}
    return {
        "hotword_recall": _ratio(c.right_hits, c.right),
        "hotword_recall_wrong": _ratio(c.wrong_hits, c.wrong),
        "hotword_recall_none": _ratio(c.none_hits, c.none),
        "hotword_false_alarm_rate": _ratio(c.false_alarms, c.lists),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
