"""The one interface of every data set: a sequence of rows, built when asked for."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from lightning_audiorl.types import Utterance


class RowSource(Sequence[Utterance]):
    """Rows by number, always the same row for the same number. Subclass it to bring a data set of your own.

    YAML names a source by ``class_path`` and ``init_args``. Ids must be unique within a source.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @abstractmethod
    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        """Row ``index``.

        Raises:
            IndexError: outside ``0 <= index < len(self)``.
        """

    def __iter__(self) -> Iterator[Utterance]:
        return (self[index] for index in range(len(self)))


def check_index(index: int, num_rows: int, source: object) -> int:
    """``index`` itself, or an IndexError that says how many rows there are."""
    if not 0 <= index < num_rows:
        raise IndexError(f"{type(source).__name__}: row {index} asked for, rows 0 to {num_rows - 1} exist")
    return index


class PickedRows(RowSource):
    """Some rows of another source."""

    def __init__(self, source: RowSource, picks: Sequence[int]) -> None:
        self.source, self.picks = source, picks

    def __len__(self) -> int:
        return len(self.picks)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        return self.source[self.picks[check_index(index, len(self.picks), self)]]


class JoinedRows(RowSource):
    """The rows of several sources, one source after another; ids must be unique over all of them."""

    def __init__(self, sources: list[RowSource]) -> None:
        if not sources:
            raise ValueError("JoinedRows: got no source")
        self.sources = sources
        self._ends = list(accumulate(len(source) for source in sources))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        check_index(index, len(self), self)
        number = bisect_right(self._ends, index)
        return self.sources[number][index - (self._ends[number - 1] if number else 0)]
