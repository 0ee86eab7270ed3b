"""Rows that are longer than a model's window, cut between words whose times are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lightning_audiorl.checks import check_number
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.types import Utterance

#: Times are rounded in files: what they lack by that is no reason.
_ROUNDED_S = 0.02


@dataclass(frozen=True)
class TimedWord:
    """A word and when it is spoken, in seconds from the beginning of its row."""

    word: str
    start: float
    end: float


class Chunks(RowSource):
    """A source whose long rows are cut into pieces of at most ``max_s``, each with the words that are spoken in it.

    A clip with one text cannot be cut without knowing which word is where. A row's field ``words`` says it, as aligners
    do: ``[{"word": "one", "start": 0.32, "end": 0.61}, ...]``, in seconds from the beginning of the row, the words of
    ``text`` in order. Cuts lie in the middle of a pause; a piece's id is ``<id>#<number>``. Rows that are short enough
    stay as they are.

    Args:
        source: the rows; all of them are looked at once.
        max_s: longest piece, in seconds; Whisper's window is 30.
        on_untimed: a long row without ``words``: error, or skip and count in ``num_skipped``.

    Raises:
        ValueError: for such a row; for words that are not those of the text, out of order, or beyond the row; for a row
            joined of several recordings.
    """

    def __init__(
        self,
        source: RowSource,
        max_s: float = 30.0,
        on_untimed: Literal["error", "skip"] = "error",
    ) -> None:
        check_number("Chunks.max_s", max_s, above=0)
        if on_untimed not in ("error", "skip"):
            raise ValueError(f"Chunks.on_untimed: want error or skip, got {on_untimed!r}")
        self.num_skipped = 0
        self._rows: list[Utterance] = []
        for row in source:
            if row.duration_s <= max_s:
                self._rows.append(row)
            elif row.extra.get("words") is None and on_untimed == "skip":
                self.num_skipped += 1
            else:
                self._rows += pieces(row, timed_words(row), max_s)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        return self._rows[check_index(index, len(self._rows), self)]


def timed_words(row: Utterance) -> list[TimedWord]:
    """The field ``words`` of a row, seen to be the words of its text, in order and within it.

    Raises:
        ValueError: naming the row, and what is wrong.
    """
    given: Any = row.extra.get("words")
    if given is None:
        raise ValueError(
            f"row {row.id!r} lasts {row.duration_s:.2f} s and has no field words with the times to cut it at; align "
            "it, or leave such rows out with on_untimed: skip"
        )
    if len(row.segments) != 1:
        raise ValueError(f"row {row.id!r}: is joined of {len(row.segments)} recordings; cut these")

    words = []
    before_s = 0.0
    for number, one in enumerate(given):
        try:
            word = TimedWord(str(one["word"]), float(one["start"]), float(one["end"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f'row {row.id!r}: words[{number}] is {one!r}; want {{"word": ..., "start": ..., "end": ...}}'
            ) from error

        if not before_s - _ROUNDED_S <= word.start <= word.end <= row.duration_s + _ROUNDED_S:
            raise ValueError(
                f"row {row.id!r}: words[{number}], {word.word!r}, is at {word.start} to {word.end} s, before the word "
                f"before it or beyond the row's {row.duration_s:.2f} s"
            )
        before_s = word.end
        words.append(word)

    if [word.word for word in words] != row.text.split():
        raise ValueError(f"row {row.id!r}: its words are not those of its text, {row.text[:60]!r}")
    return words


def pieces(row: Utterance, words: Sequence[TimedWord], max_s: float) -> list[Utterance]:
    """A row cut into pieces of at most ``max_s``; silence that fits into none is left out.

    Raises:
        ValueError: for a word that is longer than a piece.
    """
    out: list[Utterance] = []
    held: list[TimedWord] = []
    begin = 0.0
    for word in words:
        if held and word.end - begin > max_s:
            # In the middle of the pause, but no later than the piece may last.
            middle = (held[-1].end + word.start) / 2
            end = min(middle, begin + max_s)
            out.append(_piece(row, len(out), begin, end, held))
            held = []
            begin = end
        # A long pause before it may not push a word out of its piece.
        if not held:
            begin = max(begin, word.end - max_s)
        if word.start < begin - _ROUNDED_S:
            raise ValueError(f"row {row.id!r}: the word {word.word!r} lasts longer than {max_s} s")
        held.append(word)
    if held:
        out.append(_piece(row, len(out), begin, min(row.duration_s, begin + max_s), held))
    return out


def _piece(
    row: Utterance, number: int, begin: float, end: float, words: Sequence[TimedWord]
) -> Utterance:
    whole = row.segments[0]
    segment = replace(whole, offset_s=whole.offset_s + begin, duration_s=end - begin)
    text = " ".join(word.word for word in words)
    return replace(
        row,
        id=f"{row.id}#{number}",
        segments=(segment,),
        text=text,
        duration_s=end - begin,
        keywords=tuple(word for word in row.keywords if word in text),
        extra={key: value for key, value in row.extra.items() if key != "words"},
    )
