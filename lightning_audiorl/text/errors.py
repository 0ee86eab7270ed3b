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

    Example:
        >>> ErrorCounts(hits=2, substitutions=1) + ErrorCounts(hits=3, insertions=1)
        ErrorCounts(hits=5, substitutions=1, deletions=0, insertions=1)

    Args:
        hits: units that both texts have.
        substitutions: units of the reference that the hypothesis replaces by others.
        deletions: units of the reference that the hypothesis lacks.
        insertions: units that the hypothesis adds.
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
        """Units of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def hypothesis_length(self) -> int:
        """Units of the hypothesis."""
        return self.hits + self.substitutions + self.insertions

    @property
    def errors(self) -> int:
        """Edits of any kind."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference unit; an empty reference counts as one unit, so its rate is the number of insertions.

        Example:
            >>> ErrorCounts(hits=3, deletions=1).rate
            0.25
            >>> ErrorCounts(insertions=2).rate
            2.0
        """
        edits = self.substitutions + self.deletions
        return (edits + self.insertions) / max(self.hits + edits, 1)


def count_errors(reference: str, hypothesis: str, unit: Unit = "word") -> ErrorCounts:
    """Count edits that turn the reference into the hypothesis. Either may be empty.

    Example:
        >>> count_errors("a b c", "a x c d")
        ErrorCounts(hits=2, substitutions=1, deletions=0, insertions=1)
        >>> count_errors("abc", "ac", unit="char").deletions
        1

    Args:
        reference: normalised text.
        hypothesis: normalised text.
        unit: "word" splits at spaces, "char" counts every character.
    """
    source = split_units(reference, unit)
    target = split_units(hypothesis, unit)
    edits = Counter(edit.tag for edit in Levenshtein.editops(source, target))
    return ErrorCounts(
        # Units that no edit touches are equal in both.
        hits=len(source) - edits["replace"] - edits["delete"],
        substitutions=edits["replace"],
        deletions=edits["delete"],
        insertions=edits["insert"],
    )


def symmetric_error_rate(one: str, other: str, unit: Unit = "word") -> float:
    """Edits between two normalised texts over the length of the longer, 0 to 1; 0 for two empty texts.

    Example:
        >>> symmetric_error_rate("a b c d", "a b")
        0.5
        >>> symmetric_error_rate("a b", "a b c d")
        0.5
    """
    return symmetric_unit_rate(split_units(one, unit), split_units(other, unit))


def symmetric_unit_rate(one: Sequence[str], other: Sequence[str]) -> float:
    """`symmetric_error_rate` of texts that are split already.

    Example:
        >>> symmetric_unit_rate(["a", "b", "c", "d"], ["a", "b"])
        0.5
    """
    return Levenshtein.normalized_distance(one, other)


def count_errors_batch(
    references: Sequence[str], hypotheses: Sequence[str], unit: Unit = "word"
) -> list[ErrorCounts]:
    """``count_errors`` pair by pair.

    Example:
        >>> [counts.errors for counts in count_errors_batch(["a b", "c"], ["a b", "d e"])]
        [0, 2]

    Raises:
        ValueError: when the two lists differ in length.
    """
    if len(references) != len(hypotheses):
        raise ValueError(
            f"got {len(references)} references and {len(hypotheses)} hypotheses; expected one of each"
        )
    pairs = zip(references, hypotheses, strict=True)
    return [count_errors(reference, hypothesis, unit) for reference, hypothesis in pairs]
