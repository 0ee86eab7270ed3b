"""Which rows of two evaluations a page shows, and their texts laid beside the references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lightning_audiorl.metrics.rows import RECOGNISED, Compared, RowResult
from lightning_audiorl.text.alignment import AlignedUnit, aligned_units, num_errors
from lightning_audiorl.text.normalise import split_units
from lightning_audiorl.types import Utterance

#: Units of a text that are shown; a loop of a thousand words would hide all else.
MAX_UNITS = 300


@dataclass(frozen=True)
class ShownText:
    """A text beside its reference, as a page shows it.

    Args:
        who: wrote it down; "" of a policy that transcribes.
        units: in order; neighbours that are right are joined.
        gap: between two of them.
        num_errors: of the whole text.
        num_units: of the whole reference.
        num_hidden: units beyond `MAX_UNITS`.
    """

    who: str
    units: Sequence[AlignedUnit]
    gap: str
    num_errors: int
    num_units: int
    num_hidden: int = 0


@dataclass(frozen=True)
class Moment:
    """A row at one moment of a run.

    Args:
        title: such as "before (step 0)".
        texts: by everyone who wrote down what was said.
        sound: source of a player; "" without one.
        picture: source of a spectrogram; "" without one.
    """

    title: str
    texts: Sequence[ShownText]
    sound: str = ""
    picture: str = ""


@dataclass(frozen=True)
class ShownRow:
    """A row as a page shows it.

    Args:
        row: of the set.
        why: it is shown.
        moments: before and after.
        change: errors after less errors before.
        sound: source of a player of the row's own audio; "" without one.
    """

    row: Utterance
    why: str
    moments: Sequence[Moment] = field(default_factory=list)
    change: int = 0
    sound: str = ""


def shown_text(who: str, text: Compared) -> ShownText:
    """A text laid beside its reference.

    Args:
        who: wrote it down, see `RowResult`.
        text: and its reference.

    Example:
        >>> shown = shown_text("recognised", Compared("a b d", "a b c", "a b d"))
        >>> [(one.kind, one.hypothesis) for one in shown.units], shown.num_errors
        ([('hit', 'a b'), ('substitution', 'd')], 1)
    """
    reference = split_units(text.reference, text.unit)
    aligned = aligned_units(reference, split_units(text.hypothesis, text.unit))
    gap = " " if text.unit == "word" else ""
    return ShownText(
        who="" if who == RECOGNISED else who,
        units=_joined(aligned[:MAX_UNITS], gap),
        gap=gap,
        num_errors=num_errors(aligned),
        num_units=len(reference),
        num_hidden=max(0, len(aligned) - MAX_UNITS),
    )


def _joined(units: Sequence[AlignedUnit], gap: str) -> list[AlignedUnit]:
    """Neighbours that are right as one."""
    joined: list[AlignedUnit] = []
    for one in units:
        if joined and one.kind == joined[-1].kind == "hit":
            text = f"{joined[-1].hypothesis}{gap}{one.hypothesis}"
            joined[-1] = AlignedUnit("hit", text, text)
        else:
            joined.append(one)
    return joined


def row_errors(result: RowResult) -> float:
    """Errors of a row, of all its samples, by which it is worse than another.

    Args:
        result: of either task.

    Example:
        >>> row = Utterance("a", (), text="one two", duration_s=1.0)
        >>> row_errors(RowResult(row, parts={"wer": (2.0, 2.0)}))
        2.0
    """
    counted = "wer" if "wer" in result.parts else "cer"
    return result.parts.get(counted, (0.0, 0.0))[0]


def chosen_rows(
    before: Sequence[RowResult],
    after: Sequence[RowResult],
    num_each: int,
) -> list[tuple[RowResult | None, RowResult, str]]:
    """The rows that changed most, then those that are worst now, each once: (before, after, why).

    Args:
        before: rows of a set; empty where they are not known.
        after: rows of the same set.
        num_each: rows of each kind.

    Example:
        >>> def result(id, errors):
        ...     return RowResult(Utterance(id, (), "one two", 1.0), parts={"wer": (errors, 2.0)})
        >>> before = [result("a", 2.0), result("b", 2.0), result("c", 0.0)]
        >>> after = [result("a", 0.0), result("b", 2.0), result("c", 1.0)]
        >>> [(one.row.id, why) for _, one, why in chosen_rows(before, after, 1)]
        [('a', 'fewer errors'), ('c', 'more errors'), ('b', 'most errors now')]
    """
    first: Mapping[str, RowResult] = {one.row.id: one for one in before}

    def change(one: RowResult) -> float:
        start = first.get(one.row.id)
        return 0.0 if start is None else row_errors(one) - row_errors(start)

    # Equal ones in the order of their ids, so that a report is the same when it is made again.
    by_change = sorted(after, key=lambda one: (change(one), one.row.id))
    fewer = [one for one in by_change if change(one) < 0][:num_each]
    more = [one for one in reversed(by_change) if change(one) > 0][:num_each]
    worst = sorted(after, key=lambda one: (-row_errors(one), one.row.id))
    wrong = [one for one in worst if row_errors(one) > 0][:num_each]

    chosen: dict[str, tuple[RowResult | None, RowResult, str]] = {}
    for why, results in (
        ("fewer errors", fewer),
        ("more errors", more),
        ("most errors now", wrong),
    ):
        for one in results:
            chosen.setdefault(one.row.id, (first.get(one.row.id), one, why))
    return list(chosen.values())
