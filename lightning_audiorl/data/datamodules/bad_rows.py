"""What takes the place of rows whose audio is bad: other rows in training, none in an evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from lightning_audiorl.data.audio.bad_rows import BadRow, OnBadRow, may_skip, read_row
from lightning_audiorl.data.datamodules.batching import Draw
from lightning_audiorl.data.manifest.source import PickedRows, RowSource
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.types import Utterance

_log = logging.getLogger(__name__)

#: Rows tried in place of one whose audio is bad, before the source is given up.
_MOST_TRIES = 1000
#: Rows left out of one set that are named one by one in the log.
_MOST_NAMED = 5

_Read = TypeVar("_Read")


def first_usable(
    draw: Draw, num_rows: int, seed: int, read: Callable[[Draw], _Read]
) -> tuple[_Read, list[str]]:
    """What ``read`` makes of a draw, or of another row of the same source where the draw's own audio is bad.

    The rows to try come in an order keyed by seed and draw, so that ranks, loader processes and resumed runs agree.
    They are drawn as epoch ``<epoch>.i<row>``, which makes their ids other than those of their own turn.

    Args:
        draw: of the training order.
        num_rows: of its source.
        seed: of that order.
        read: raises `BadRow` where a draw cannot be used.

    Returns:
        What was read, and what is wrong with the rows that were passed over.

    Raises:
        BadRow: one that may not be skipped; or there is no usable row among 1,000, or in the whole source.
    """
    try:
        return read(draw), []
    except BadRow as error:
        if not error.may_skip:
            raise
        problems = [str(error)]

    generator = keyed_generator("instead", seed, draw.source, draw.row, str(draw.epoch))
    order = torch.randperm(num_rows, generator=generator).tolist()
    others = [row for row in order if row != draw.row]
    for row in others[:_MOST_TRIES]:
        try:
            return read(Draw(draw.source, row, f"{draw.epoch}.i{draw.row}")), problems
        except BadRow as error:
            if not error.may_skip:
                raise
            problems.append(str(error))

    raise BadRow(
        f"source {draw.source} of the training mix: {len(problems)} of its {num_rows} rows were tried, and the audio "
        f"of all of them is bad; the first: {problems[0]}"
    )


def without_bad_rows(
    rows: RowSource, name: str, read: Callable[[Utterance], Any], on_bad_row: OnBadRow
) -> tuple[RowSource, list[str]]:
    """The rows whose audio can be used, and what is wrong with the others. Only rows that may be skipped are read.

    Args:
        rows: of an evaluation set.
        name: of the set, for messages.
        read: fails where a row cannot be used.
        on_bad_row: of the data module.

    Raises:
        BadRow: no row is left.
    """
    good: list[int] = []
    problems: list[str] = []
    for number, row in enumerate(rows):
        if may_skip(row, on_bad_row):
            try:
                read_row(row, read, on_bad_row)
            except BadRow as error:
                problems.append(str(error))
                continue
        good.append(number)

    if not problems:
        return rows, []
    say_left_out(name, problems)
    if not good:
        raise BadRow(f"{name}: the audio of all {len(rows)} rows is bad; the first: {problems[0]}")
    _log.warning(
        "%s: left out %d of %d rows, whose audio is bad; metrics are over the other %d",
        name,
        len(problems),
        len(rows),
        len(good),
    )
    return PickedRows(rows, good), problems


def say_left_out(name: str, problems: Sequence[str], before: int = 0) -> None:
    """Log what is wrong with rows that are left out, the first of a set one by one.

    Args:
        name: of the set.
        problems: not said yet.
        before: how many of this set were said before.
    """
    room = max(0, _MOST_NAMED - before)
    for problem in problems[:room]:
        _log.warning("%s: left out: %s", name, problem)
    if before <= _MOST_NAMED < before + len(problems):
        _log.warning("%s: further rows that are left out are counted, and not named", name)
