"""The one interface of every data set: a sequence of rows, built when asked for."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from lightning_audiorl.types import Origin, Utterance


class RowSource(Sequence[Utterance]):
    """Rows by number, always the same row for the same number. Subclass it to bring a data set of your own.

    YAML names a source by ``class_path`` and ``init_args``. Ids must be unique within a source.

    Example:
        >>> class Greetings(RowSource):
        ...     def __len__(self) -> int:
        ...         return 2
        ...
        ...     def __getitem__(self, index: int) -> Utterance:
        ...         text = ["hello", "good bye"][check_index(index, 2, self)]
        ...         return Utterance(id=f"greeting-{index}", segments=(), text=text, duration_s=1.0)
        >>> [row.text for row in Greetings()]
        ['hello', 'good bye']
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
    """``index`` itself.

    Raises:
        IndexError: there is no such row; names the source and says how many rows there are.
    """
    if not 0 <= index < num_rows:
        name = type(source).__name__
        raise IndexError(f"{name}: row {index} asked for, rows 0 to {num_rows - 1} exist")
    return index


def joined_origin(*rows: Utterance | None) -> Origin | None:
    """The lines that a row made of others comes from; it may be skipped where one of them may.

    Example:
        >>> first = Utterance("a", (), "one", 1.0, origin=Origin("m.jsonl, line 1", skip=True))
        >>> second = Utterance("b", (), "two", 1.0, origin=Origin("m.jsonl, line 2"))
        >>> joined_origin(first, None, second)
        Origin(where='m.jsonl, line 1 and m.jsonl, line 2', skip=True)
    """
    origins = [row.origin for row in rows if row is not None and row.origin is not None]
    if not origins:
        return None
    places = dict.fromkeys(origin.where for origin in origins)
    return Origin(" and ".join(places), any(origin.skip for origin in origins))


class PickedRows(RowSource):
    """Some rows of another source.

    Args:
        source: the rows.
        picks: the numbers of those to keep, in order.
    """

    def __init__(self, source: RowSource, picks: Sequence[int]) -> None:
        self.source = source
        self.picks = picks

    def __len__(self) -> int:
        return len(self.picks)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        number = self.picks[check_index(index, len(self.picks), self)]
        return self.source[number]


class JoinedRows(RowSource):
    """The rows of several sources, one source after another.

    Args:
        sources: at least one; ids must be unique over all of them.

    Raises:
        ValueError: no source.
    """

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
        start = self._ends[number - 1] if number else 0
        return self.sources[number][index - start]
