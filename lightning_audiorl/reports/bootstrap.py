"""Intervals of differences between two evaluations of the same rows, by a paired bootstrap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_audiorl.metrics.rows import Part
from lightning_audiorl.ops.randomness import keyed_generator

#: Times that the rows are drawn again.
NUM_DRAWS = 2000

# Rows times draws at once: 64 MiB of float64.
_CHUNK = 2**23


@dataclass(frozen=True)
class Interval:
    """A value and the 95 % interval around it.

    Args:
        value: a ratio, or the difference of two.
        low: of the interval; NaN where it is not known.
        high: of the interval.

    Example:
        >>> Interval(-0.1, -0.15, -0.05).excludes_zero, Interval(-0.1, -0.3, 0.1).excludes_zero
        (True, False)
    """

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def is_known(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Paired:
    """A metric in two evaluations of the same rows.

    Args:
        first: its value in the first.
        second: its value in the second.
        difference: the second less the first.
    """

    first: Interval
    second: Interval
    difference: Interval


def paired_intervals(
    first: Mapping[str, Sequence[Part]],
    second: Mapping[str, Sequence[Part]],
    *key: int | str,
    num_draws: int = NUM_DRAWS,
) -> dict[str, Paired]:
    """The ratios of two evaluations and their differences, with intervals.

    The rows are drawn again with replacement, each with what both evaluations say of it, so that a row that is hard for
    both moves neither. All metrics see the same draws. A draw in which a ratio has nothing below its line is left out.

    Args:
        first: by metric, the parts of each row; all of one length.
        second: the same metrics of the same rows in the same order.
        key: of the draws; the same key, rows and order give the same interval.
        num_draws: times that the rows are drawn again.

    Raises:
        ValueError: where the numbers of rows differ.

    Example:
        >>> before = {"wer": [(1.0, 2.0), (1.0, 2.0), (2.0, 2.0)]}
        >>> after = {"wer": [(0.0, 2.0), (0.0, 2.0), (1.0, 2.0)]}
        >>> paired_intervals(before, after, "example")["wer"].difference
        Interval(value=-0.5, low=-0.5, high=-0.5)
    """
    names = list(first)
    sizes = {len(parts) for parts in (*first.values(), *second.values())}
    if len(sizes) > 1 or set(first) != set(second):
        raise ValueError(
            f"paired_intervals: want the same metrics of the same rows twice; got {sorted(first)} and "
            f"{sorted(second)}, of {sorted(sizes)} rows"
        )
    num_rows = sizes.pop() if sizes else 0
    if not num_rows:
        return {}

    # [rows, 4 * metrics]: upper and lower part of the first evaluation, then of the second.
    columns = []
    for name in names:
        columns.append(torch.tensor(first[name], dtype=torch.float64))
        columns.append(torch.tensor(second[name], dtype=torch.float64))
    parts = torch.cat(columns, dim=1)

    drawn = drawn_sums(
        parts,
        num_draws,
        *key,
    )
    whole = parts.sum(0, keepdim=True)
    intervals = {}
    for place, name in enumerate(names):
        ratios = [_ratios(sums[:, 4 * place : 4 * place + 4]) for sums in (whole, drawn)]
        intervals[name] = Paired(*map(_interval, *ratios))
    return intervals


def drawn_sums(
    parts: Tensor,
    num_draws: int,
    *key: int | str,
) -> Tensor:
    """[num_draws, columns]: the sums over as many rows as there are, drawn with replacement."""
    num_rows = len(parts)
    generator = keyed_generator("bootstrap", *key)
    at_once = max(1, _CHUNK // num_rows)

    sums = []
    for start in range(0, num_draws, at_once):
        num = min(at_once, num_draws - start)
        rows = torch.randint(
            num_rows,
            (num, num_rows),
            generator=generator,
        )

        # How often each row was drawn: one product of matrices in the place of a sum for each metric.
        times = torch.zeros(
            num,
            num_rows,
            dtype=torch.float64,
        )
        times.scatter_add_(
            1,
            rows,
            torch.ones_like(times),
        )
        sums.append(times @ parts)
    return torch.cat(sums)


def _ratios(sums: Tensor) -> list[Tensor]:
    """The first ratio, the second one, and their difference, of each line of sums: [lines, 4]."""
    first = sums[:, 0] / sums[:, 1]
    second = sums[:, 2] / sums[:, 3]
    return [first, second, second - first]


def _interval(whole: Tensor, drawn: Tensor) -> Interval:
    value = float(whole[0])
    drawn = drawn[drawn.isfinite()]
    if not len(drawn) or not math.isfinite(value):
        return Interval(value)

    ends = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return Interval(
        value,
        float(ends[0]),
        float(ends[1]),
    )
