"""Metrics that must hold while another improves, and how long that other one has stood still."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

from lightning import Trainer

from lightning_audiorl.callbacks.view import flat_metrics

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Guard:
    """How far a metric may go from its start, the value at the run's first evaluation; None is no limit.

    Args:
        fall, rise: how far it may be below or above its start, absolute.
        drift: how far it may be from its start either way, as a share of it.
        low, high: bounds of the metric itself; where it starts outside one, its start is the bound.

    Raises:
        ValueError: without any limit; for a negative distance; for a number that is not finite.

    Example: a similarity that began at 0.80 holds down to 0.75.
        >>> Guard(fall=0.05).limits(0.80)
        (0.75, inf)
    """

    fall: float | None = None
    rise: float | None = None
    drift: float | None = None
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in astuple(self) if value is not None]
        distances = [value for value in (self.fall, self.rise, self.drift) if value is not None]
        are_fine = all(map(math.isfinite, given)) and min(distances, default=0) >= 0
        if not given or not are_fine:
            raise ValueError(
                f"want one or more of fall, rise, drift (each >= 0), low and high, all of them finite; got {self}"
            )

    def limits(self, start: float) -> tuple[float, float]:
        """The lowest and the highest value that hold.

        Args:
            start: value at the run's first evaluation.

        Example:
            >>> Guard(drift=0.5, high=1.0).limits(2.0)
            (1.0, 2.0)
        """
        lows = [-math.inf]
        highs = [math.inf]

        if self.fall is not None:
            lows.append(start - self.fall)
        if self.rise is not None:
            highs.append(start + self.rise)

        # A metric may start below 0, and a share of it must still be a distance.
        if self.drift is not None:
            lows.append(start - self.drift * abs(start))
            highs.append(start + self.drift * abs(start))

        # A run that starts beyond a bound may stay there, and not go further.
        if self.low is not None:
            lows.append(min(self.low, start))
        if self.high is not None:
            highs.append(max(self.high, start))

        return max(lows), min(highs)


def metric_at(evaluation: Mapping[str, Any], key: str, setting: str) -> float:
    """The metric ``key`` of one evaluation.

    Args:
        evaluation: one of `RunView.evaluations`.
        key: ``val/<set>/<metric>``.
        setting: that names the metric, for the error.

    Raises:
        ValueError: where there is no such metric.

    Example:
        >>> metric_at({"results": {"long": {"wer": 0.3}}}, "val/long/wer", "EarlyStop.monitor")
        0.3
    """
    metrics = flat_metrics(evaluation["results"])
    if key not in metrics:
        known = ", ".join(sorted(metrics)) or "none"
        raise ValueError(
            f"{setting}: no metric {key!r} among {known}; write it as val/<set>/<metric>"
        )
    return metrics[key]


def start_value(evaluations: Sequence[Mapping[str, Any]], key: str) -> float:
    """The metric ``key`` before the first step; NaN for a run that was not evaluated then, or had no such set.

    Args:
        evaluations: of the run, oldest first.
        key: ``val/<set>/<metric>``.

    Example:
        >>> first = {"rl_step": 0, "results": {"long": {"wer": 0.3}}}
        >>> start_value([first], "val/long/wer")
        0.3
    """
    for evaluation in evaluations[:1]:
        if evaluation["rl_step"] == 0:
            return flat_metrics(evaluation["results"]).get(key, math.nan)
    return math.nan


def broken_guards(
    evaluations: Sequence[Mapping[str, Any]],
    guards: Mapping[str, Guard],
    setting: str,
) -> list[str]:
    """One sentence for each metric that does not hold at the last evaluation; NaN does not.

    Args:
        evaluations: of the run, oldest first, at least one.
        guards: by log key, ``val/<set>/<metric>``.
        setting: that the guards come from, for errors.

    Raises:
        ValueError: for a metric that there is not, or that is NaN at the first evaluation.

    Example:
        >>> evaluations = [{"results": {"dev": {"similarity": value}}} for value in (0.80, 0.75, 0.70)]
        >>> broken_guards(evaluations, {"val/dev/similarity": Guard(fall=0.05)}, "EarlyStop.guards")
        ['val/dev/similarity is 0.7, to hold it had to be at least 0.75; it began at 0.8']
    """
    broken = []
    for key, guard in guards.items():
        start = metric_at(evaluations[0], key, setting)
        now = metric_at(evaluations[-1], key, setting)
        if math.isnan(start):
            raise ValueError(
                f"{setting}: {key} is NaN at the run's first evaluation; a guard wants a metric that the set has "
                "(a judge, speaker prompts)"
            )

        # NaN is within no limits, so a metric that has become undefined does not hold.
        low, high = guard.limits(start)
        if not low <= now <= high:
            wanted = _range(low, high)
            broken.append(
                f"{key} is {now:.4g}, to hold it had to be {wanted}; it began at {start:.4g}"
            )
    return broken


def _range(low: float, high: float) -> str:
    if math.isinf(low):
        return f"at most {high:.4g}"
    if math.isinf(high):
        return f"at least {low:.4g}"
    return f"within {low:.4g} and {high:.4g}"


def since_best(values: Sequence[float], mode: Mode, min_delta: float) -> int:
    """Values since the last that was better than the best before by more than ``min_delta``; NaN is never better.

    Args:
        values: oldest first.
        mode: whether lower or higher is better.
        min_delta: absolute.

    Example:
        >>> since_best([0.5, 0.4, 0.41, 0.395], "min", 0.01)
        2
    """
    sign = 1 if mode == "min" else -1
    best = math.inf
    num = 0
    for value in values:
        if sign * value < best - min_delta:
            best = sign * value
            num = 0
        else:
            num += 1
    return num


def require_evaluations(trainer: Trainer, setting: str) -> None:
    """See that a fit that watches a metric has evaluations to take it from.

    Args:
        trainer: at the start of training.
        setting: that names the metric.

    Raises:
        ValueError: where there is no validation set, or no batch of one.
    """
    if sum(trainer.num_val_batches) == 0:
        raise ValueError(
            f"{setting}: the run has no evaluation to take it from; give the data module a `val` set, and "
            "trainer.limit_val_batches another number than 0"
        )
