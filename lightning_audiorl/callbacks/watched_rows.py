"""What the hacking watch knows of the rows of evaluations, so that it can tell a change from chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_audiorl.metrics.rows import RowResult
from lightning_audiorl.metrics.specs import MetricSpec, evaluation_spec
from lightning_audiorl.reports.noise import Measure, noise_bound

#: Metrics that `empty_answer_alerts` compares with the empty answer.
_ERROR_RATES = ("wer", "cer")


@dataclass(frozen=True)
class RowParts:
    """What the rows of a set add to some metrics at one validation.

    Args:
        validation: its number, from 0.
        ids: of the rows.
        parts: by metric, [rows, 2]: upper and lower part of the ratio.
    """

    validation: int
    ids: list[str]
    parts: dict[str, Tensor]

    def only(self, names: Sequence[str]) -> RowParts:
        """Of these metrics alone."""
        return RowParts(self.validation, self.ids, {name: self.parts[name] for name in names})


def is_watched(spec: MetricSpec) -> bool:
    """Whether the watch compares a metric with an earlier validation."""
    return spec.watch is not None and (spec.watch != "reward" or spec.better is not None)


def terms_of(spec: MetricSpec) -> tuple[str, ...]:
    """The ratios that a metric is made of: itself, or the two whose difference it is.

    Example:
        >>> terms_of(evaluation_spec("judge_gap")), terms_of(evaluation_spec("wer"))
        (('held_out_cer', 'cer'), ('wer',))
    """
    return spec.difference_of or (spec.name,)


def measure_of(spec: MetricSpec) -> Measure:
    """What is compared of a metric: its value, or how far it is from 1 where that is best.

    Example:
        >>> measure_of(evaluation_spec("length_ratio"))(torch.tensor([0.75]))
        tensor(0.2500)
        >>> measure_of(evaluation_spec("judge_gap"))(torch.tensor([0.75, 0.25]))
        tensor(0.5000)
    """
    if spec.difference_of is not None:
        return lambda ratios: ratios[..., 0] - ratios[..., 1]
    if spec.better == "near one":
        return lambda ratios: (ratios[..., 0] - 1.0).abs()
    return lambda ratios: ratios[..., 0]


class WatchedRows:
    """Rows of the first validation, and of each metric's best one, beside those of the last.

    A change is beyond chance where it is larger than the `noise_bound` of its rows. The bound's level is what
    ``false_alarms`` leaves for one comparison: validation k gets the share 1/(k (k + 1)) of it, which adds up to 1
    however many there are, split evenly over its comparisons, of which each metric of each set has k. So a run in which
    nothing changes is told of a change with the probability ``false_alarms`` at most, as far as its rows are alike
    those of which the set is a sample.

    Another decoding of a set has no rows of its own and is judged by those of the first one.

    Args:
        false_alarms: share of runs without a change in which something may be said.
    """

    def __init__(self, false_alarms: float) -> None:
        self.false_alarms = false_alarms
        self.start: dict[str, RowParts] = {}
        self.best: dict[str, RowParts] = {}
        self.now: dict[str, RowParts] = {}
        self._best_values: dict[str, float] = {}
        self._num_comparisons = 1

    def state_dict(self) -> dict[str, Any]:
        """Rows of the start and of the best, as plain data."""
        kept = {}
        for name in ("start", "best"):
            by_key: dict[str, RowParts] = getattr(self, name)
            kept[name] = {key: [one.validation, one.ids, one.parts] for key, one in by_key.items()}
        return {**kept, "best_values": self._best_values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the `state_dict` of another process."""
        for name in ("start", "best"):
            setattr(self, name, {key: RowParts(*one) for key, one in state[name].items()})
        self._best_values = dict(state["best_values"])

    def note(
        self,
        validation: int,
        rows: Mapping[str, Sequence[RowResult]],
        metrics: Mapping[str, float],
    ) -> None:
        """Take in a validation.

        Args:
            validation: its number, from 0.
            rows: of all ranks, by set, in the order of their ids.
            metrics: by log key.
        """
        watched = [key for key in metrics if is_watched(evaluation_spec(key))]
        # Each with every validation before it, and a set's silence once more.
        self._num_comparisons = max(1, (len(watched) + len(rows)) * max(1, validation))

        self.now = {}
        for set_name, results in rows.items():
            self.now[set_name] = _parts(validation, results)
            self.start.setdefault(set_name, self.now[set_name])

        for key in watched:
            spec = evaluation_spec(key)
            found = self.now.get(_set_of(key))
            if spec.watch != "reward" or found is None or spec.name not in found.parts:
                continue
            badness = spec.badness(metrics[key])
            # As the alert looks for it: of equal ones the first is the best.
            if badness < self._best_values.get(key, math.inf):
                self._best_values[key] = badness
                self.best[key] = found.only([spec.name])

    def is_noise(self, key: str, since: int, change: float) -> bool:
        """Whether chance may have made a change of a metric; False where its rows are not known.

        Args:
            key: of the metric, ``val/<set>/<name>``.
            since: number of the validation that the last one is compared with.
            change: of what `measure_of` says.
        """
        spec = evaluation_spec(key)
        now = self.now.get(_set_of(key))
        before = self._rows_at(key, since)
        if now is None or before is None or before.ids != now.ids:
            return False

        terms = terms_of(spec)
        if any(term not in before.parts or term not in now.parts for term in terms):
            return False
        first = [before.parts[term] for term in terms]
        second = [now.parts[term] for term in terms]
        return self._is_within(change, first, second, spec, key, now.validation)

    def is_above_empty_by_chance(self, key: str, since: int, change: float) -> bool:
        """Whether an error rate may be above that of the empty answer by chance alone; see `is_noise`."""
        spec = evaluation_spec(key)
        now = self.now.get(_set_of(key))
        if now is None or spec.name not in _ERROR_RATES or spec.name not in now.parts:
            return False

        # It deletes every unit that there is to say.
        units = now.parts[spec.name][:, 1:]
        empty = units.expand(-1, 2)
        return self._is_within(change, [empty], [now.parts[spec.name]], spec, key, now.validation)

    def _is_within(
        self,
        change: float,
        first: Sequence[Tensor],
        second: Sequence[Tensor],
        spec: MetricSpec,
        key: str,
        validation: int,
    ) -> bool:
        place = max(1, validation)
        level = self.false_alarms / (place * (place + 1)) / self._num_comparisons
        bound = noise_bound(first, second, measure_of(spec), level, key, validation)
        return abs(change) <= bound

    def _rows_at(self, key: str, since: int) -> RowParts | None:
        """The rows of a validation; those of the start where it is not kept, whose noise is much the same."""
        best = self.best.get(key)
        if best is not None and best.validation == since:
            return best
        return self.start.get(_set_of(key))


def _set_of(key: str) -> str:
    """``<set>`` of ``val/<set>/<metric>`` or ``val/<set>/<decoding>/<metric>``."""
    return key.split("/")[1]


def _parts(validation: int, results: Sequence[RowResult]) -> RowParts:
    """What the watch needs of the rows of a set."""
    names: dict[str, None] = {}
    for result in results:
        names |= dict.fromkeys(name for name in result.parts if is_watched(evaluation_spec(name)))

    parts = {}
    for name in names:
        lines = [result.parts.get(name, (0.0, 0.0)) for result in results]
        # Counts are whole numbers and exact; a checkpoint holds half as much.
        parts[name] = torch.tensor(lines, dtype=torch.float32)
    return RowParts(validation, [result.row.id for result in results], parts)
