"""Subsets by what a row says of itself: all, a random control, by length, by an empty reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lightning_audiorl.checks import check_number
from lightning_audiorl.data.mix.selection.base import (
    Candidate,
    SubsetBuilder,
    Verdict,
    kind_of,
    removed,
)
from lightning_audiorl.types import Utterance

#: What is decided on rows by the million.
_EVERY_ROW = Verdict(True, "every row")
_AT_RANDOM = Verdict(True, "drawn at random")
_NOT_EMPTY = Verdict(False, "reference not empty")


class Everything(SubsetBuilder):
    """All rows; with ``num_rows`` that many drawn at random.

    Args:
        num_rows: most rows kept; none keeps all.

    Example:
        >>> Everything(100).judge(Candidate(0, Utterance("a", (), "one two", 1.5))).reason
        'every row'
    """

    def judge(self, candidate: Candidate) -> Verdict:
        return _EVERY_ROW


class RandomControl(SubsetBuilder):
    """Rows drawn at random (D0): what a rule of choice is compared with.

    With ``like`` it is a control of the same size, kinds and durations: from each cell of (kind, duration bin) it takes
    as many rows as that subset has there, and never one of that subset's own. Where a cell has too few others, it stays
    smaller. Kind: ``extra["kind"]`` of the row, else nonspeech where the text is empty, else speech.

    Args:
        num_rows: rows drawn; leave it out with ``like``.
        like: name of another subset of the same mix.
        bin_s: width of a duration bin, in seconds.

    Example: a subset of two rows with text between 3 s and 4 s and of one without text between 1 s and 2 s.
        >>> control = RandomControl(like="hard", bin_s=1.0)
        >>> lengths_s = {"one": 3.2, "one two": 3.9, "": 1.5}
        >>> control.matches([Utterance(f"hard {text}", (), text, length_s) for text, length_s in lengths_s.items()])
        >>> control.judge(Candidate(0, Utterance("another", (), "ten", 3.5))).reason
        "drawn at random like 'hard' (speech, 3 to 4 s)"
        >>> control.places("speech, 3 to 4 s"), control.places("nonspeech, 1 to 2 s")
        (2, 1)
    """

    def __init__(
        self, num_rows: int | None = None, like: str | None = None, bin_s: float = 1.0
    ) -> None:
        super().__init__(num_rows)
        if (num_rows is None) == (like is None):
            raise ValueError(
                "RandomControl: give num_rows, or like (which takes that subset's number of rows); got "
                f"{num_rows=}, {like=}"
            )
        check_number("RandomControl.bin_s", bin_s, above=0)

        self.like = like
        self.bin_s = bin_s
        # Known when the other subset is built: rows of it per cell, and their ids.
        self._places: Counter[str] | None = None
        self._taken: frozenset[str] = frozenset()

    def matches(self, rows: Sequence[Utterance]) -> None:
        """Take the counts of these rows per cell, and leave out rows of their ids."""
        cells = [(self._cell(row), row.id) for row in rows]
        self._places = Counter(cell for cell, _ in cells)
        self._taken = frozenset(row_id for _, row_id in cells)

    def _cell(self, row: Utterance) -> str:
        low_s = int(row.duration_s / self.bin_s) * self.bin_s
        high_s = low_s + self.bin_s
        return f"{kind_of(row)}, {low_s:g} to {high_s:g} s"

    def places(self, cell: str) -> int | None:
        return self.num_rows if self._places is None else self._places[cell]

    def judge(self, candidate: Candidate) -> Verdict:
        if self.like is None:
            return _AT_RANDOM
        if self._places is None:
            raise ValueError(
                f"RandomControl: build {self.like!r} first and give its rows to matches()"
            )

        if candidate.row.id in self._taken:
            return removed(f"row of {self.like!r} itself")
        cell = self._cell(candidate.row)
        if not self._places[cell]:
            return removed(f"{self.like!r} has no row of this kind and length")
        return Verdict(True, f"drawn at random like {self.like!r} ({cell})", cell=cell)


class Length(SubsetBuilder):
    """Rows longer than one limit, or no longer than another (D2).

    Args:
        num_rows: most rows kept; none keeps all.
        min_s: rows must be longer than this, in seconds.
        max_s: and no longer than this; none: no limit.

    Example:
        >>> at_limit = Candidate(0, Utterance("a", (), "one two", 20.0))
        >>> Length(min_s=20).judge(at_limit).reason
        'not longer than 20 s'
        >>> Length(min_s=0, max_s=20).judge(at_limit).reason
        '20.0 s long'
    """

    def __init__(
        self, num_rows: int | None = None, min_s: float = 20.0, max_s: float | None = None
    ) -> None:
        super().__init__(num_rows)
        check_number("Length.min_s", min_s)
        if max_s is not None:
            check_number("Length.max_s", max_s, infinite=True)
        if min_s < 0 or (max_s is not None and max_s <= min_s):
            raise ValueError(
                f"Length: want 0 <= min_s < max_s, in seconds; got min_s={min_s}, max_s={max_s}"
            )

        self.min_s = min_s
        self.max_s = max_s

    def judge(self, candidate: Candidate) -> Verdict:
        duration_s = candidate.row.duration_s
        if duration_s <= self.min_s:
            return removed(f"not longer than {self.min_s:g} s")
        if self.max_s is not None and duration_s > self.max_s:
            return removed(f"longer than {self.max_s:g} s")
        return Verdict(True, f"{duration_s:.1f} s long")


class EmptyReference(SubsetBuilder):
    """Rows in which nothing is spoken: silence, noise, music. A recogniser must answer them with nothing.

    Args:
        num_rows: most rows kept; none keeps all.
        kinds: wanted values of ``extra["kind"]`` ("nonspeech" is a row that names no kind); none: any.

    Example:
        >>> silence = Candidate(0, Utterance("a", (), "", 2.0, extra={"kind": "silence"}))
        >>> EmptyReference().judge(silence).reason
        'empty reference (silence)'
        >>> EmptyReference(kinds=["white", "hum"]).judge(silence).reason
        'kind not asked for'
    """

    def __init__(self, num_rows: int | None = None, kinds: Sequence[str] | None = None) -> None:
        super().__init__(num_rows)
        if kinds is not None and (isinstance(kinds, str) or not kinds):
            raise ValueError(
                f"EmptyReference: kinds must be a list of one or more names, got {kinds!r}"
            )

        self.kinds = None if kinds is None else frozenset(kinds)

    def judge(self, candidate: Candidate) -> Verdict:
        if candidate.row.text.strip():
            return _NOT_EMPTY

        kind = kind_of(candidate.row)
        if self.kinds is not None and kind not in self.kinds:
            return removed("kind not asked for")
        return Verdict(True, f"empty reference ({kind})")
