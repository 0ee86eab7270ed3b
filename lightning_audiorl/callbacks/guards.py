"""Figures that must hold while another improves, and how long that other one has stood still."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

from lightning_audiorl.callbacks.view import flat_metrics

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Guard:
    """How far a figure may go from its start, the value at the run's first evaluation; None is no limit.

    Example: ``Guard(fall=0.03)`` on a similarity that began at 0.80 holds down to 0.77.

    Args:
        fall, rise: how far it may be below or above its start, absolute.
        drift: how far it may be from its start either way, as a share of it.
        low, high: bounds of the figure itself; where it starts outside one, its start is the bound.
    """

    fall: float | None = None
    rise: float | None = None
    drift: float | None = None
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in astuple(self) if value is not None]
        distances = [value for value in (self.fall, self.rise, self.drift) if value is not None]
        if not given or not all(map(math.isfinite, given)) or min(distances, default=0) < 0:
            raise ValueError(
                f"want one or more of fall, rise, drift (each >= 0), low and high, all of them finite; got {self}"
            )

    def limits(self, start: float) -> tuple[float, float]:
        """The lowest and the highest value that hold."""
        drift = None if self.drift is None else self.drift * abs(start)
        lows = [start - by for by in (self.fall, drift) if by is not None]
        highs = [start + by for by in (self.rise, drift) if by is not None]
        lows += [] if self.low is None else [min(self.low, start)]
        highs += [] if self.high is None else [max(self.high, start)]
        return max(lows, default=-math.inf), min(highs, default=math.inf)


def figure(evaluation: Mapping[str, Any], key: str, setting: str) -> float:
    """The figure ``key`` of one evaluation.

    Args:
        evaluation: one of ``AudioRLModule.evaluations``.
        key: ``val/<set>/<figure>``.
        setting: that names the figure, for the error.

    Raises:
        ValueError: where there is no such figure.
    """
    figures = flat_metrics(evaluation["results"])
    if key not in figures:
        raise ValueError(
            f"{setting}: no figure {key!r} among {', '.join(sorted(figures)) or 'none'}; write it as val/<set>/<figure>"
        )
    return figures[key]


def broken_guards(
    evaluations: Sequence[Mapping[str, Any]], guards: Mapping[str, Guard], setting: str
) -> list[str]:
    """One sentence for each figure that does not hold at the last evaluation; NaN does not.

    Args:
        evaluations: of the run, oldest first, at least one.
        guards: by log key, ``val/<set>/<figure>``.
        setting: that the guards come from, for errors.

    Raises:
        ValueError: for a figure that there is not, or that is NaN at the first evaluation.
    """
    broken = []
    for key, guard in guards.items():
        start, now = (figure(evaluations[i], key, setting) for i in (0, -1))
        if math.isnan(start):
            raise ValueError(
                f"{setting}: {key} is NaN at the run's first evaluation; a guard wants a figure that the set has "
                "(a judge, speaker prompts)"
            )
        low, high = guard.limits(start)
        if not low <= now <= high:
            broken.append(
                f"{key} is {now:.4g}, to hold it had to be {_range(low, high)}; it began at {start:.4g}"
            )
    return broken


def _range(low: float, high: float) -> str:
    if math.isinf(low):
        return f"at most {high:.4g}"
    return f"at least {low:.4g}" if math.isinf(high) else f"within {low:.4g} and {high:.4g}"


def since_best(values: Sequence[float], mode: Mode, min_delta: float) -> int:
    """Values since the last that was better than the best before by more than ``min_delta``; NaN is never better."""
    sign = 1 if mode == "min" else -1
    best, num = math.inf, 0
    for value in values:
        better = sign * value < best - min_delta
        best, num = (sign * value, 0) if better else (best, num + 1)
    return num
