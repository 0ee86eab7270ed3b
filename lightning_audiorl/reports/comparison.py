"""Two evaluations of the same sets side by side: values, counts, differences and what they amount to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_audiorl.metrics.rows import Part, RowResult
from lightning_audiorl.metrics.specs import (
    EVALUATION_METRICS,
    Format,
    MetricSpec,
    evaluation_spec,
)
from lightning_audiorl.reports.bootstrap import Interval, Paired, paired_intervals
from lightning_audiorl.reports.row_files import Rows

#: Metrics by set, as a run's report keeps them; what is undefined is NaN or None.
Metrics = Mapping[str, Mapping[str, float | None]]

#: Abbreviations in the names of metrics.
_UPPER = {"wer": "WER", "cer": "CER", "f0": "F0", "f1": "F1", "hz": "Hz"}

Judgement = Literal["better", "worse", "unchanged", "unknown"]

#: Fewer rows than these, drawn again, say nothing of other rows.
MIN_ROWS = 10


@dataclass(frozen=True)
class Difference:
    """A metric of a set in two evaluations.

    Args:
        set_name: of the set.
        metric: its name.
        before: its value in the first evaluation, and the interval around it where that is known.
        after: in the second.
        change: the second less the first.

    Example:
        >>> one = Difference("dev", "wer", Interval(0.4), Interval(0.3), Interval(-0.1, -0.14, -0.06))
        >>> one.judgement, one.text
        ('better', '40.0 → 30.0 % (-10.0 points, 95 % interval -14.0 to -6.0)')
    """

    set_name: str
    metric: str
    before: Interval
    after: Interval
    change: Interval

    @property
    def spec(self) -> MetricSpec:
        """What there is to know about the metric."""
        return evaluation_spec(self.metric)

    @property
    def name(self) -> str:
        """The metric in words, such as ``WER`` or ``insertion rate``."""
        words = [_UPPER.get(word, word) for word in self.spec.words.split()]
        return " ".join(words).replace("held out", "held-out")

    @property
    def format(self) -> Format:
        """How its values are written."""
        return self.spec.format or Format()

    @property
    def judgement(self) -> Judgement:
        """Whether it got better or worse beyond chance; unknown without an interval or a good direction."""
        better = self.spec.better
        # On which side of 1 a metric lies, an interval around a difference does not say.
        if better in (None, "near one") or not self.change.is_known:
            return "unknown"
        if not self.change.excludes_zero:
            return "unchanged"
        return "better" if (self.change.value < 0) == (better == "lower") else "worse"

    @property
    def unit(self) -> str:
        """After a value."""
        return " %" if self.format.is_percent else ""

    @property
    def before_text(self) -> str:
        """The first value."""
        return self.format.text(self.before.value)

    @property
    def after_text(self) -> str:
        """The second value."""
        return self.format.text(self.after.value)

    @property
    def change_text(self) -> str:
        """The difference with its sign."""
        return self._signed(self.change.value)

    @property
    def interval_text(self) -> str:
        """``low to high``; empty where it is not known."""
        if not self.change.is_known:
            return ""
        return f"{self._signed(self.change.low)} to {self._signed(self.change.high)}"

    @property
    def text(self) -> str:
        """Values, difference and interval in a line."""
        points = " points" if self.format.is_percent else ""
        around = f"95 % interval {self.interval_text}" if self.interval_text else "no interval"
        change = f"({self.change_text}{points}, {around})"
        return f"{self.before_text} → {self.after_text}{self.unit} {change}"

    def _signed(self, value: float) -> str:
        if math.isnan(value):
            return "-"
        shown = round(self.format.factor * value, self.format.digits)
        # Neither +0.0 nor -0.0.
        sign = "+" if shown else ""
        return f"{shown or 0.0:{sign}.{self.format.digits}f}"


@dataclass(frozen=True)
class SetComparison:
    """A set in two evaluations.

    Args:
        name: of the set.
        num_utterances: rows that were compared, or counted by the first evaluation.
        num_units: words of their references; characters of speech that is synthesised.
        unit: what these are, in the plural.
        differences: by metric, in the order of the table of metrics.
        note: why there are no intervals; empty where there are.
    """

    name: str
    num_utterances: int
    num_units: int
    unit: str
    differences: Mapping[str, Difference]
    note: str = ""

    @property
    def size(self) -> str:
        """Such as ``200 utterances, 1,432 words``."""
        if not self.num_units:
            return f"{self.num_utterances:,} utterances without {self.unit}"
        return f"{self.num_utterances:,} utterances, {self.num_units:,} {self.unit}"


def compare_rows(
    before: Metrics,
    after: Metrics,
    rows_before: Rows,
    rows_after: Rows,
) -> list[SetComparison]:
    """Every set that both evaluations have, with intervals where the rows of both are known.

    Args:
        before: metrics by set.
        after: the same later, or of another run.
        rows_before: by set.
        rows_after: by set.
    """
    compared = []
    for name in before:
        if name in after:
            ours = rows_before.get(name, ())
            theirs = rows_after.get(name, ())
            compared.append(
                _compare_set(
                    name,
                    before[name],
                    after[name],
                    ours,
                    theirs,
                )
            )
    return compared


def number(value: float | None) -> float:
    """A metric as a report keeps it: null is NaN.

    Example:
        >>> number(None), number(0.5)
        (nan, 0.5)
    """
    return math.nan if value is None else float(value)


def why_not_paired(first: Sequence[RowResult], second: Sequence[RowResult]) -> str:
    """Why rows of two evaluations cannot be compared in pairs; empty where they can.

    Args:
        first: rows in the order of their ids.
        second: rows in the order of their ids.

    Example:
        >>> why_not_paired([], [])
        'the rows of an evaluation are not kept'
    """
    if not first or not second:
        return "the rows of an evaluation are not kept"
    if [one.row.id for one in first] != [one.row.id for one in second]:
        return f"other rows were evaluated ({len(first)} and {len(second)})"
    if len(first) < MIN_ROWS:
        return f"{len(first)} utterances are too few for an interval"
    return ""


def _compare_set(
    name: str,
    before: Mapping[str, float | None],
    after: Mapping[str, float | None],
    rows_before: Sequence[RowResult],
    rows_after: Sequence[RowResult],
) -> SetComparison:
    note = why_not_paired(rows_before, rows_after)
    intervals = {} if note else _intervals(name, rows_before, rows_after)

    differences = {}
    for spec in _specs(before, after):
        first = number(before.get(spec.name))
        second = number(after.get(spec.name))
        if not (math.isnan(first) and math.isnan(second)):
            # The value is the evaluation's own; the rows say how far it may be trusted.
            around = intervals.get(spec.name)
            differences[spec.name] = _difference(
                name,
                spec.name,
                first,
                second,
                around,
            )

    num_utterances, num_units, unit = _size(before, rows_before)
    return SetComparison(
        name,
        num_utterances,
        num_units,
        unit,
        differences,
        note,
    )


def _difference(
    set_name: str,
    metric: str,
    before: float,
    after: float,
    around: Paired | None,
) -> Difference:
    values = [before, after, after - before]
    if around is None:
        return Difference(
            set_name,
            metric,
            *map(Interval, values),
        )

    known = [around.first, around.second, around.difference]
    pairs = zip(
        values,
        known,
        strict=True,
    )
    intervals = [Interval(value, one.low, one.high) for value, one in pairs]
    return Difference(
        set_name,
        metric,
        *intervals,
    )


def _specs(*results: Mapping[str, float | None]) -> Iterator[MetricSpec]:
    """The metrics that have a column, in the order of the table, then those that have no spec."""
    names = dict.fromkeys(name for metrics in results for name in metrics)
    known = [spec.name for spec in EVALUATION_METRICS if spec.name in names]
    for name in dict.fromkeys([*known, *names]):
        spec = evaluation_spec(name)
        if spec.format is not None:
            yield spec


def parts_by_metric(rows: Sequence[RowResult]) -> dict[str, list[Part]]:
    """Parts of each row by metric; nothing of a metric that a row says nothing of.

    Args:
        rows: of a set.
    """
    names = dict.fromkeys(name for row in rows for name in row.parts)
    nothing = (0.0, 0.0)
    return {name: [row.parts.get(name, nothing) for row in rows] for name in names}


def _intervals(
    set_name: str,
    before: Sequence[RowResult],
    after: Sequence[RowResult],
) -> dict[str, Paired]:
    first = parts_by_metric(before)
    second = parts_by_metric(after)
    shared = [name for name in first if name in second]
    return paired_intervals(
        {name: first[name] for name in shared},
        {name: second[name] for name in shared},
        set_name,
    )


def _size(metrics: Mapping[str, float | None], rows: Sequence[RowResult]) -> tuple[int, int, str]:
    """Utterances, units of their references, and what these units are."""
    is_speech = "missing_stop_rate" in metrics
    counted = "cer" if is_speech else "wer"
    num_units = sum(row.parts[counted][1] for row in rows if counted in row.parts)
    if not rows:
        num_units = number(metrics.get("num_reference_words") or 0.0)

    texts = [text for row in rows for text in row.texts.values()]
    in_characters = bool(texts) and all(text.unit == "char" for text in texts)
    unit = "characters" if is_speech or in_characters else "words"

    num_evaluated = metrics.get("num_samples" if is_speech else "num_utterances")
    num_utterances = len(rows) or int(number(num_evaluated or 0.0))
    return num_utterances, round(num_units), unit
