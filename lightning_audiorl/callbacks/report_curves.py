"""The bars and curves of a run's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_audiorl.callbacks.plots import judge_panels, panels
from lightning_audiorl.metrics.specs import evaluation_spec
from lightning_audiorl.reports.charts import (
    NUM_COLOURS,
    Bars,
    Chart,
    Line,
    bars,
    chart,
    is_constant,
    smoothed,
)
from lightning_audiorl.reports.comparison import (
    SetComparison,
    compare_rows,
    number,
)
from lightning_audiorl.reports.runs import BEFORE, Run
from lightning_audiorl.reports.verdict import headline_metrics

Columns = Mapping[str, Sequence[float]]


# --- bars


def bars_of_run(
    run: Run,
    sets: Sequence[SetComparison],
    labels: tuple[str, str],
) -> list[Bars]:
    """The headline metrics of each set, each on a scale of its own.

    Args:
        run: with one evaluation or two.
        sets: what has changed; empty of one evaluation.
        labels: what the evaluations are called.
    """
    is_compared = bool(sets)
    if not is_compared:
        # An evaluation beside itself: its values have intervals, and nothing has changed.
        results = run.metrics(BEFORE)
        rows = run.rows_of(BEFORE)
        sets = compare_rows(
            results,
            results,
            rows,
            rows,
        )

    drawn = []
    for one in sets:
        for difference in headline_metrics(one):
            values = {labels[0]: difference.before}
            if is_compared:
                values[labels[1]] = difference.after
            title = f"{difference.name}, {one.name}"
            drawn.append(
                Bars(
                    title,
                    bars(values, difference.format),
                    one.size,
                )
            )
    return drawn


# --- curves


def curves_of_run(report: Mapping[str, Any]) -> list[Chart]:
    """Evaluations first, then training; what never changes is left out.

    Args:
        report: of a run, as data.
    """
    drawn = _evaluation_charts(report["evaluations"])

    columns: dict[str, list[float]] = {}
    for name, column in report["history"].items():
        columns[name] = [number(value) for value in column]
    steps = columns.pop("rl_step", [])

    for title, names in panels(columns).items():
        drawn.append(
            _training_chart(
                title,
                names,
                steps,
                columns,
            )
        )

    phases = {}
    for name in columns:
        if name.startswith("seconds/"):
            phases[name] = name.removeprefix("seconds/")
    drawn.append(
        chart(
            "seconds per phase",
            _lines(phases, steps, columns),
        )
    )
    return [one for one in drawn if one is not None]


def _training_chart(
    title: str,
    names: Sequence[str],
    steps: Sequence[float],
    columns: Columns,
) -> Chart | None:
    changing = {}
    for name in names:
        if not is_constant(columns[name]):
            changing[name] = name

    if title != "reward":
        return chart(
            title,
            _lines(changing, steps, columns),
        )

    # Each step thin, the running mean on it, on a scale that no spread of the samples widens.
    lines = []
    for name in changing:
        values = columns[name]
        lines.append(Line("each step", steps, values, faint=True))
        lines.append(Line("running mean", steps, smoothed(values)))
    return chart(title, lines)


def _lines(
    names: Mapping[str, str],
    steps: Sequence[float],
    columns: Columns,
) -> list[Line]:
    """A curve of each column.

    Args:
        names: in the legend, by column.
        steps: of all columns.
        columns: values.
    """
    lines = []
    for colour, (name, shown) in enumerate(names.items()):
        # Where colours come again, dashes tell two curves apart.
        dashed = colour >= NUM_COLOURS
        lines.append(
            Line(
                shown,
                steps,
                columns[name],
                colour,
                dashed=dashed,
            )
        )
    return lines


def _evaluation_charts(evaluations: Sequence[Mapping[str, Any]]) -> list[Chart | None]:
    """Metrics over evaluations, where there are more than the two that the bars show."""
    if len(evaluations) < 3:
        return []

    steps = [one["rl_step"] for one in evaluations]
    grouped = _error_rates(evaluations)
    grouped |= judge_panels(evaluations)

    drawn = []
    for title, curves in grouped.items():
        lines = []
        for colour, (name, values) in enumerate(curves.items()):
            spec = evaluation_spec(name)
            scaled = [spec.factor * value for value in values]
            # The judge that rewards comes first; those held out are dashed.
            is_held_out = colour > 0
            lines.append(Line(spec.title, steps, scaled, colour, dashed=is_held_out))
        drawn.append(chart(title, lines, marks=True))
    return drawn


def _error_rates(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """The word error rate of each set that has one, over evaluations."""
    rates = {}
    for set_name in evaluations[0]["results"]:
        values = []
        for one in evaluations:
            metrics = one["results"].get(set_name, {})
            values.append(number(metrics.get("wer")))

        if not is_constant(values):
            rates[f"{set_name}: WER (%)"] = {"wer": values}
    return rates
