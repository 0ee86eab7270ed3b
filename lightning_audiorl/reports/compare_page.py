"""The page of runs side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_audiorl.reports.charts import Bars, Chart, Line, bars, chart
from lightning_audiorl.reports.compare import Beside
from lightning_audiorl.reports.comparison import Difference, number
from lightning_audiorl.reports.page import render
from lightning_audiorl.reports.tables import HEADER, change_cell, entries
from lightning_audiorl.reports.verdict import headline_metrics


def compare_page(found: Sequence[Beside], title: str) -> str:
    """Verdicts, one table, bars with intervals and the seeds as dots, curves over evaluations.

    Args:
        found: of `side_by_side`.
        title: of the page.
    """
    return render(
        "compare.html",
        title=title,
        found=found,
        header=HEADER,
        entries=list(entries(found, only_headlines=True)),
        change_cell=change_cell,
        bars=_bars(found),
        charts=_charts(found),
    )


def _bars(found: Sequence[Beside]) -> list[Bars]:
    """The start and the end of each group, a metric and a set together."""
    drawn = []
    for set_name, of_set in found[0].from_start.items():
        for headline in headline_metrics(of_set):
            values = {"start": headline.before}
            dots: dict[str, list[float]] = {}
            for one in found:
                difference = one.from_start[set_name].differences[headline.metric]
                values[one.group.size] = difference.after
                dots[one.group.size] = one.group.values(set_name, headline.metric)

            shown = bars(values, headline.format, dots)
            drawn.append(Bars(f"{headline.name}, {set_name}", shown, of_set.size))
    return drawn


def _charts(found: Sequence[Beside]) -> list[Chart]:
    """Metrics over evaluations, a line for each run; none where all have but two."""
    drawn = []
    for set_name, of_set in found[0].from_start.items():
        for headline in headline_metrics(of_set):
            lines: list[Line] = []
            for colour, one in enumerate(found, 1):
                lines += _lines(one, colour, set_name, headline)

            # The bars show the two.
            most = max((len(line.xs) for line in lines), default=0)
            made = chart(f"{headline.name}, {set_name}", lines, marks=True)
            if made is not None and most > 2:
                drawn.append(made)
    return drawn


def _lines(
    one: Beside,
    colour: int,
    set_name: str,
    headline: Difference,
) -> list[Line]:
    """The curve of each run of a group, in the group's colour."""
    lines: list[Line] = []
    for run in one.group.runs.values():
        steps = []
        values = []
        for evaluation in run.report["evaluations"]:
            metrics = evaluation["results"].get(set_name, {})
            value = number(metrics.get(headline.metric))
            if evaluation["kind"] == "val" and math.isfinite(value):
                steps.append(evaluation["rl_step"])
                values.append(headline.format.factor * value)

        # The group is named once.
        name = "" if lines else one.group.name
        lines.append(
            Line(
                name,
                steps,
                values,
                colour,
            )
        )
    return lines
