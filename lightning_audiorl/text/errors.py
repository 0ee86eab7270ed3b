"""Counts of hits, substitutions, deletions and insertions between two texts (minimum edit distance)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from lightning_audiorl.text.normalise import Unit, split_units


@dataclass(frozen=True)
class ErrorCounts:
    """Edit counts of one or more utterances; add two to join them.

    Example: reference "a b c", hypothesis "a x c d" -> hits 2, substitutions 1, deletions 0, insertions 1.
    """

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )

    @property
    def reference_length(self) -> int:
        return self.hits + self.substitutions + self.deletions

    @property
    def hypothesis_length(self) -> int:
        return self.hits + self.substitutions + self.insertions

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference unit; an empty reference counts as one unit, so its rate is the number of insertions."""
        return self.errors / max(self.reference_length, 1)


def count_errors(reference: str, hypothesis: str, unit: Unit = "word") -> ErrorCounts:
    """Count edits that turn the reference into the hypothesis. Either may be empty.

    Args:
        reference: normalised text.
        hypothesis: normalised text.
        unit: "word" splits at spaces, "char" counts every character.
    """
    source, target = split_units(reference, unit), split_units(hypothesis, unit)
    edits = Counter(edit.tag for edit in Levenshtein.editops(source, target))
    substitutions, deletions, insertions = edits["replace"], edits["delete"], edits["insert"]
    return ErrorCounts(len(source) - substitutions - deletions, substitutions, deletions, insertions)


def symmetric_error_rate(one: str, other: str, unit: Unit = "word") -> float:
    """Edits between two normalised texts over the length of the longer, 0 to 1; 0 for two empty texts."""
    return Levenshtein.normalized_distance(split_units(one, unit), split_units(other, unit))


def count_errors_batch(references: Sequence[str], hypotheses: Sequence[str], unit: Unit = "word") -> list[ErrorCounts]:
    """``count_errors`` pair by pair.

    Raises:
        ValueError: when the two lists differ in length.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"got {len(references)} references and {len(hypotheses)} hypotheses; expected one of each")
    return [count_errors(r, h, unit) for r, h in zip(references, hypotheses, strict=True)]
