"""How far the difference of two evaluations of the same rows may come from chance alone, at any level."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from lightning_audiorl.reports.bootstrap import drawn_sums

#: Times that the rows are drawn again: enough for a standard error, which needs fewer draws than an interval's ends.
NUM_DRAWS = 500

#: Of ratios [..., num_ratios] one number each [...].
Measure = Callable[[Tensor], Tensor]


def noise_bound(
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    measure: Measure,
    level: float,
    *key: int | str,
) -> float:
    """The difference, absolute, that two evaluations of equal quality exceed with the probability ``level``.

    The rows are drawn again in pairs, as for the intervals of reports. From these draws comes the standard error of
    the difference, and from that, by Student's t, an interval of any level: the ends of a level such as 0.0001 lie
    beyond what some hundred draws can show. One row that has not changed is added, so that few rows that all changed
    alike are not taken for certain.

    Args:
        first: [rows, 2] for each ratio: upper and lower part of each row.
        second: the same ratios of the same rows.
        measure: makes one number of the ratios.
        level: above 0, below 1; of both directions together.
        key: of the draws.

    Returns:
        Infinity where too few rows say anything.

    Example:
        >>> words = torch.full((100, 1), 10.0)
        >>> before = torch.cat([torch.arange(100)[:, None] % 3, words], dim=1)
        >>> after = torch.cat([torch.arange(100)[:, None] % 5, words], dim=1)
        >>> bounds = [noise_bound([before], [after], lambda ratios: ratios[..., 0], level) for level in (0.05, 0.001)]
        >>> [round(bound, 2) for bound in bounds]
        [0.03, 0.06]
    """
    parts = torch.cat([*first, *second], dim=1).double()
    # Rows that add to none of the ratios say nothing of them.
    parts = parts[parts.abs().sum(1) > 0]
    if len(parts) < 2:
        return math.inf

    num_ratios = len(first)
    mean = parts.mean(0).unflatten(0, (2, -1)).mean(0)
    parts = torch.cat([parts, torch.cat([mean, mean])[None]])
    sums = drawn_sums(parts, NUM_DRAWS, "noise", *key)

    ratios = sums[:, 0::2] / sums[:, 1::2]
    changes = measure(ratios[:, num_ratios:]) - measure(ratios[:, :num_ratios])
    changes = changes[changes.isfinite()]
    if len(changes) < NUM_DRAWS / 2:
        return math.inf

    # Draws vary by the rows' variance over their number, and not over that less one.
    num_rows = len(parts)
    error = float(changes.std()) * math.sqrt(num_rows / (num_rows - 1))
    return student_bound(level, num_rows - 1) * error


def student_bound(level: float, freedom: int) -> float:
    """What Student's t exceeds in absolute value with the probability ``level``.

    By Wallace's approximation (1959): never less, and within 2 % for 9 degrees of freedom or more.

    Args:
        level: above 0, below 1.
        freedom: degrees of freedom.

    Example:
        >>> round(student_bound(0.05, 9), 2), round(student_bound(0.05, 1000), 2)
        (2.26, 1.96)
    """
    normal = -NormalDist().inv_cdf(level / 2)
    narrowed = normal * (8 * freedom + 3) / (8 * freedom + 1)
    return math.sqrt(freedom * math.expm1(narrowed**2 / freedom))
