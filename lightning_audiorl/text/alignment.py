"""Two texts laid side by side, unit by unit, to be shown: what is right, another, missing, or too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import Levenshtein

Kind = Literal["hit", "substitution", "deletion", "insertion"]


@dataclass(frozen=True)
class AlignedUnit:
    """A unit of the reference against one of the hypothesis.

    Args:
        kind: of the two.
        reference: "" of an insertion.
        hypothesis: "" of a deletion.
    """

    kind: Kind
    reference: str
    hypothesis: str


def aligned_units(reference: Sequence[str], hypothesis: Sequence[str]) -> list[AlignedUnit]:
    """Every unit of both texts in order, by minimum edit distance.

    Args:
        reference: units of the normalised reference.
        hypothesis: units of the normalised hypothesis.

    Example:
        >>> for one in aligned_units("a b c".split(), "a x b d".split()):
        ...     print(one.kind, one.reference or "-", one.hypothesis or "-")
        hit a a
        insertion - x
        hit b b
        substitution c d
    """
    aligned: list[AlignedUnit] = []
    for edit in Levenshtein.opcodes(reference, hypothesis):
        spoken = reference[edit.src_start : edit.src_end]
        written = hypothesis[edit.dest_start : edit.dest_end]

        if edit.tag == "delete":
            aligned += [AlignedUnit("deletion", unit, "") for unit in spoken]
        elif edit.tag == "insert":
            aligned += [AlignedUnit("insertion", "", unit) for unit in written]
        else:
            kind: Kind = "hit" if edit.tag == "equal" else "substitution"
            pairs = zip(spoken, written, strict=True)
            aligned += [AlignedUnit(kind, one, other) for one, other in pairs]
    return aligned


def num_errors(aligned: Sequence[AlignedUnit]) -> int:
    """Units that are no hits.

    Example:
        >>> num_errors(aligned_units(["a", "b"], ["a"]))
        1
    """
    return sum(one.kind != "hit" for one in aligned)
