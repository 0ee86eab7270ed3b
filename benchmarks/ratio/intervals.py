"""The ratio of two builds' seconds, and how far it can be trusted."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Pair(NamedTuple):
    """Seconds of the same work by either build, taken one after the other."""

    base: float
    present: float


@dataclass(frozen=True)
class Ratio:
    """The present build's seconds over the base build's.

    Args:
        base, present: medians over all pairs.
        low, high: the middle 95 % of what resampled rounds and pairs give.
    """

    base: float
    present: float
    low: float
    high: float

    @property
    def value(self) -> float:
        """The ratio of the medians."""
        return self.present / self.base

    def is_slower(self, limit: float) -> bool:
        """Whether even the interval's lower end lies above ``limit``."""
        return self.low > limit


def _medians(pairs: Sequence[Pair]) -> tuple[float, float]:
    base = statistics.median(pair.base for pair in pairs)
    present = statistics.median(pair.present for pair in pairs)
    return base, present


def ratio(rounds: Sequence[Sequence[Pair]], resamples: int = 2000) -> Ratio:
    """The ratio of the medians, and its bootstrap interval.

    Rounds are drawn with replacement, then pairs within each. Two processes of one build differ by a percent for as
    long as they live, by where their memory lies: pairs of one round are not independent, and pairs drawn alone would
    make the interval too narrow.

    Args:
        rounds: pairs by round; a round is one process of either build.
        resamples: draws of the bootstrap, which is seeded.

    Example:
        >>> measured = ratio([[Pair(2.0, 1.0), Pair(4.0, 2.0)]])
        >>> measured.value, measured.low, measured.high
        (0.5, 0.5, 0.5)
    """
    base, present = _medians([pair for pairs in rounds for pair in pairs])

    draw = random.Random(0)
    drawn = []
    for _ in range(resamples):
        pairs: list[Pair] = []
        for chosen in draw.choices(rounds, k=len(rounds)):
            pairs += draw.choices(chosen, k=len(chosen))
        drawn_base, drawn_present = _medians(pairs)
        drawn.append(drawn_present / drawn_base)

    drawn.sort()
    low = drawn[round(0.025 * (resamples - 1))]
    high = drawn[round(0.975 * (resamples - 1))]
    return Ratio(base, present, low, high)
