"""What an evaluation says of each row, so that two evaluations of the same rows can be compared in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lightning_audiorl.metrics.functional import UtteranceCounts
from lightning_audiorl.text.normalise import Unit
from lightning_audiorl.types import Utterance

#: What a row adds to a metric: the upper and the lower part of its ratio.
Part = tuple[float, float]

#: Who wrote the text of a policy that transcribes; texts of speech have the names of their judges.
RECOGNISED = "recognised"

# Fields of `UtteranceCounts` by metric: those that are added up above the line, and those below it.
_RATIOS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "wer": (("substitutions", "deletions", "insertions"), ("words",)),
    "cer": (("character_errors",), ("characters",)),
    "substitution_rate": (("substitutions",), ("words",)),
    "insertion_rate": (("insertions",), ("words",)),
    "deletion_rate": (("deletions",), ("words",)),
    "correct_rate": (("hits",), ("words",)),
    "exact_match": (("exact",), ("utterances",)),
    "hallucination_rate": (("hallucinated",), ("utterances",)),
    "loop_rate": (("loops",), ("utterances",)),
    "keyword_precision": (("keyword_hits",), ("hypothesis_keywords",)),
    "keyword_recall": (("keyword_hits",), ("keywords",)),
    "keyword_f1": (("keyword_hits", "keyword_hits"), ("keywords", "hypothesis_keywords")),
    "length_ratio": (("hypothesis_words",), ("words",)),
    "nonspeech_text_rate": (("nonspeech_texts",), ("nonspeech",)),
    "unfinished_rate": (("unfinished",), ("utterances",)),
}


@dataclass(frozen=True)
class Compared:
    """A text beside its reference.

    Args:
        text: as it was written down, of the row's first sample.
        reference: normalised.
        hypothesis: normalised.
        unit: what the normalised texts are split into.

    Example:
        >>> Compared("One too.", "one two", "one too").unit
        'word'
    """

    text: str
    reference: str
    hypothesis: str
    unit: Unit = "word"


@dataclass(frozen=True)
class RowResult:
    """What an evaluation says of a row.

    Args:
        row: of the set.
        texts: by who wrote them down, `RECOGNISED` or a judge; one that failed has none.
        parts: upper and lower part by metric, over all samples of the row. Added up over the rows of a set and divided,
            they are the metric.

    Example:
        >>> row = Utterance("a", (), text="one two", duration_s=1.0)
        >>> RowResult(row, {RECOGNISED: Compared("one", "one two", "one")}, {"wer": (1.0, 2.0)}).parts["wer"]
        (1.0, 2.0)
    """

    row: Utterance
    texts: Mapping[str, Compared] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)


def recognition_parts(counts: Sequence[UtteranceCounts]) -> dict[str, Part]:
    """Upper and lower part of each metric of `asr_rates` that is a ratio of counts.

    Args:
        counts: of the samples of one row.

    Example:
        >>> parts = recognition_parts([UtteranceCounts(utterances=1, words=4, hits=3, deletions=1)])
        >>> parts["wer"], parts["keyword_f1"]
        ((1.0, 4.0), (0.0, 0.0))
    """
    parts = {}
    for name, (above, below) in _RATIOS.items():
        parts[name] = (_sum(counts, above), _sum(counts, below))
    return parts


def _sum(counts: Sequence[UtteranceCounts], names: Sequence[str]) -> float:
    total = 0.0
    for one in counts:
        total += sum(float(getattr(one, name)) for name in names)
    return total
