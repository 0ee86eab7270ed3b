"""Subsets by what a row says of itself: all, a random control, by length, by an empty reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lightning_audiorl.data.mix.selection.base import Candidate, SubsetBuilder, Verdict, kind_of
from lightning_audiorl.types import Utterance


class Everything(SubsetBuilder):
    """All rows; with ``num_rows`` that many drawn at random.

    Args:
        num_rows: most rows kept; none keeps all.
    """

    def judge(self, candidate: Candidate) -> Verdict:
        return Verdict(True, "every row")


class RandomControl(SubsetBuilder):
    """Rows drawn at random (D0): what a rule of choice is compared with.

    With ``like`` it is a control of the same size, kinds and durations: from each cell of (kind, duration bin) it takes
    as many rows as that subset has there, and never one of that subset's own. Where a cell has too few others, it stays
    smaller. Kind: ``extra["kind"]`` of the row, else nonspeech where the text is empty, else speech.

    Example: the subset "hard" has two rows of 3.2 s and 3.9 s and a non-speech row of 1.5 s;
    ``RandomControl(like="hard", bin_s=1.0)`` draws two other rows of 3 s to 4 s with text, and one without text of 1 s
    to 2 s.

    Args:
        num_rows: rows drawn; leave it out with ``like``.
        like: name of another subset of the same mix.
        bin_s: width of a duration bin, in seconds.
    """

    def __init__(self, num_rows: int | None = None, like: str | None = None, bin_s: float = 1.0) -> None:
        super().__init__(num_rows)
        if (num_rows is None) == (like is None):
            raise ValueError(
                "RandomControl: give num_rows, or like (which takes that subset's number of rows); got "
                f"{num_rows=}, {like=}"
            )
        if not bin_s > 0:
            raise ValueError(f"RandomControl: want bin_s > 0 seconds, got {bin_s}")
        self.like, self.bin_s = like, bin_s
        self._places: Counter[str] | None = None
        self._taken: frozenset[str] = frozenset()

    def matches(self, rows: Sequence[Utterance]) -> None:
        """Take the counts of these rows per cell, and leave out rows of their ids."""
        cells = [(self._cell(row), row.id) for row in rows]
        self._places = Counter(cell for cell, _ in cells)
        self._taken = frozenset(row_id for _, row_id in cells)

    def _cell(self, row: Utterance) -> str:
        low_s = int(row.duration_s / self.bin_s) * self.bin_s
        return f"{kind_of(row)}, {low_s:g} to {low_s + self.bin_s:g} s"

    def places(self, cell: str) -> int | None:
        return self.num_rows if self._places is None else self._places[cell]

    def judge(self, candidate: Candidate) -> Verdict:
        if self.like is None:
            return Verdict(True, "drawn at random")
        if self._places is None:
            raise ValueError(f"RandomControl: build {self.like!r} first and give its rows to matches()")
        if candidate.row.id in self._taken:
            return Verdict(False, f"row of {self.like!r} itself")
        cell = self._cell(candidate.row)
        if not self._places[cell]:
            return Verdict(False, f"{self.like!r} has no row of this kind and length")
        return Verdict(True, f"drawn at random like {self.like!r} ({cell})", cell=cell)


class Length(SubsetBuilder):
    """Rows longer than one limit, or no longer than another (D2).

    Example: ``Length(min_s=20)`` keeps rows longer than 20 s, ``Length(min_s=0, max_s=20)`` all others.

    Args:
        num_rows: most rows kept; none keeps all.
        min_s: rows must be longer than this, in seconds.
        max_s: and no longer than this; none: no limit.
    """

    def __init__(self, num_rows: int | None = None, min_s: float = 20.0, max_s: float | None = None) -> None:
        super().__init__(num_rows)
        if min_s < 0 or (max_s is not None and max_s <= min_s):
            raise ValueError(f"Length: want 0 <= min_s < max_s, in seconds; got min_s={min_s}, max_s={max_s}")
        self.min_s, self.max_s = min_s, max_s

    def judge(self, candidate: Candidate) -> Verdict:
        duration_s = candidate.row.duration_s
        if duration_s <= self.min_s:
            return Verdict(False, f"not longer than {self.min_s:g} s")
        if self.max_s is not None and duration_s > self.max_s:
            return Verdict(False, f"longer than {self.max_s:g} s")
        return Verdict(True, f"{duration_s:.1f} s long")


class EmptyReference(SubsetBuilder):
    """Rows in which nothing is spoken: silence, noise, music. A recogniser must answer them with nothing.

    Example: ``EmptyReference(kinds=["white", "hum"])`` keeps rows with an empty text whose ``extra["kind"]`` is one of
    the two; without ``kinds`` every row with an empty text.

    Args:
        num_rows: most rows kept; none keeps all.
        kinds: wanted values of ``extra["kind"]`` ("nonspeech" is a row that names no kind); none: any.
    """

    def __init__(self, num_rows: int | None = None, kinds: Sequence[str] | None = None) -> None:
        super().__init__(num_rows)
        if kinds is not None and (isinstance(kinds, str) or not kinds):
            raise ValueError(f"EmptyReference: kinds must be a list of one or more names, got {kinds!r}")
        self.kinds = None if kinds is None else frozenset(kinds)

    def judge(self, candidate: Candidate) -> Verdict:
        if candidate.row.text.strip():
            return Verdict(False, "reference not empty")
        kind = kind_of(candidate.row)
        if self.kinds is not None and kind not in self.kinds:
            return Verdict(False, "kind not asked for")
        return Verdict(True, f"empty reference ({kind})")
