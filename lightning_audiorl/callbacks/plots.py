"""The plots of a run report, as PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_audiorl.callbacks.figure_text import as_plain_text, label
from lightning_audiorl.callbacks.metric_table import shown_metrics
from lightning_audiorl.callbacks.view import Results
from lightning_audiorl.metrics.specs import (
    EVALUATION_METRICS,
    STEP_METRICS,
    MetricSpec,
    evaluation_spec,
)
from lightning_audiorl.reports.bootstrap import Interval
from lightning_audiorl.reports.charts import is_constant, smoothed
from lightning_audiorl.reports.comparison import Difference

#: Values over evaluations by metric.
Curves = dict[str, list[float]]


def _figure(
    num_panels: int,
    columns: int = 3,
    size: tuple[float, float] = (4.2, 3.0),
) -> tuple[Figure, list[Any]]:
    """A figure and the axes of its panels, row by row; ``size`` is that of a panel, in inches."""
    columns = min(columns, num_panels)
    rows = math.ceil(num_panels / columns)
    width, height = size
    figure = Figure(figsize=(width * columns, height * rows))

    # Not pyplot: it keeps every figure in a global list, and asks for a display.
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(num_panels)]
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    as_plain_text(figure)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


# --- over RL steps


def panels(columns: Mapping[str, Sequence[float]]) -> dict[str, list[str]]:
    """Which training curves share a panel, by its title: panels, and curves in them, in the order of `STEP_METRICS`.

    Args:
        columns: values by log key.

    Example:
        >>> panels({"kl": [0.0], "reward/b/mean": [1.0], "reward/mean": [1.0], "seconds/update": [2.0]})
        {'reward': ['reward/mean'], 'reward parts': ['reward/b/mean'], 'KL to the start': ['kl']}
    """
    specs = list(STEP_METRICS)
    place = {spec.name: number for number, spec in enumerate(specs)}

    def place_of(name: str) -> int:
        return place.get(STEP_METRICS[name].name, len(specs))

    grouped: dict[str, list[str]] = {}
    for name in sorted(columns, key=place_of):
        panel = STEP_METRICS[name].panel
        if panel is not None:
            grouped.setdefault(panel, []).append(name)
    return grouped


def plot_curves(
    steps: Sequence[int],
    columns: Mapping[str, Sequence[float]],
    path: Path,
) -> bool:
    """Training curves over RL steps; False when there is nothing to draw.

    A curve that never changes is left out. The reward is drawn thin, its running mean on it, on a scale of their own.

    Args:
        steps: RL steps.
        columns: values at these steps by log key.
        path: of the picture.
    """
    grouped = _changing(columns)
    if not steps or not grouped:
        return False

    figure, axes = _figure(len(grouped))
    for axis, (title, names) in zip(axes, grouped.items(), strict=True):
        for name in names:
            if title == "reward":
                axis.plot(steps, columns[name], color="C0", linewidth=0.8, alpha=0.5)
                axis.plot(steps, smoothed(columns[name]), color="C0", linewidth=2)
            else:
                axis.plot(steps, columns[name], label=label(name), linewidth=1.2)

        axis.set_title(title)
        axis.set_xlabel("RL step")
        if len(names) > 1:
            _legend_below(axis)

    _save(figure, path)
    return True


def _changing(columns: Mapping[str, Sequence[float]]) -> dict[str, list[str]]:
    """The panels of `panels` without curves that never change, and without those that are empty then."""
    grouped = {}
    for title, names in panels(columns).items():
        changing = [name for name in names if not is_constant(columns[name])]
        if changing:
            grouped[title] = changing
    return grouped


def _legend_below(axis: Any) -> None:
    """A legend that hides no curve."""
    axis.legend(
        fontsize=7,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.22),
        ncols=2,
        frameon=False,
    )


def plot_seconds(
    steps: Sequence[int],
    columns: Mapping[str, Sequence[float]],
    path: Path,
) -> bool:
    """Seconds of each phase over RL steps, one on the other; False when there is nothing to draw.

    Args:
        steps: RL steps.
        columns: values at these steps by log key; those of phases are ``seconds/<phase>``.
        path: of the picture.
    """
    names = [name for name in columns if name.startswith("seconds/")]
    if not steps or not names:
        return False

    # A phase that a step did not have took no time; NaN would leave a hole in all that is stacked above it.
    stacked = []
    for name in names:
        stacked.append([0.0 if math.isnan(seconds) else seconds for seconds in columns[name]])

    figure, (axis,) = _figure(1)
    phases = [name.removeprefix("seconds/") for name in names]
    axis.stackplot(steps, stacked, labels=phases)
    axis.set_title("seconds per phase")
    axis.set_xlabel("RL step")
    _legend_below(axis)

    _save(figure, path)
    return True


# --- before and after


def _bars(before: Results) -> list[tuple[MetricSpec, list[str]]]:
    """The metrics that have bars, in their order, each with the sets in which it is defined."""
    drawn = [spec for spec in shown_metrics(before) if spec.bars is not None]
    drawn.sort(key=lambda spec: spec.bars or 0)

    defined = []
    for spec in drawn:
        names = []
        for set_name, metrics in before.items():
            if not math.isnan(metrics.get(spec.name, math.nan)):
                names.append(set_name)
        if names:
            defined.append((spec, names))
    return defined


def plot_metrics(
    before: Results,
    after: Results | None,
    labels: tuple[str, str],
    path: Path,
    known: Mapping[str, Mapping[str, Difference]] | None = None,
) -> bool:
    """Bars of the main metrics, before and after, of every set where they are defined; False without any.

    Each metric of each set has a scale of its own: a set that is easy is not flat beside one that is hard.

    Args:
        before: metrics by "<set>" or "<set>/<decoding>".
        after: the same later on.
        labels: what the two are called.
        path: of the picture.
        known: intervals by set and metric.
    """
    drawn = []
    for spec, names in _bars(before):
        for name in names:
            values = [
                results.get(name, {}).get(spec.name, 0.0) for results in (before, after or {})
            ]
            # Bars of no height are an empty panel.
            if any(values):
                drawn.append((spec, name))
    if not drawn:
        return False

    known = known or {}
    figure, axes = _figure(len(drawn), columns=4, size=(2.8, 2.3))
    for axis, (spec, name) in zip(axes, drawn, strict=True):
        values = [before[name][spec.name]]
        if after is not None:
            values.append(after.get(name, {}).get(spec.name, math.nan))

        difference = known.get(name, {}).get(spec.name)
        around = [] if difference is None else [difference.before, difference.after]
        _draw_bars(axis, spec, values, labels, around)

        unit = " (%)" if spec.factor == 100 else ""
        axis.set_title(label(f"{spec.words}{unit}, {name}"), fontsize=8)

    _save(figure, path)
    return True


def _draw_bars(
    axis: Any,
    spec: MetricSpec,
    values: Sequence[float],
    labels: Sequence[str],
    around: Sequence[Interval],
) -> None:
    """A bar for each value, with the value on it and the interval around it."""
    axis.margins(y=0.2)
    axis.set_xticks(range(len(values)), [label(name) for name in labels[: len(values)]], fontsize=7)
    axis.tick_params(axis="y", labelsize=7)

    for place, value in enumerate(values):
        if math.isnan(value):
            continue
        height = spec.factor * value
        axis.bar(place, height, 0.6, color=f"C{place}", alpha=0.7)

        top = height
        if place < len(around) and around[place].is_known:
            low = spec.factor * around[place].low
            top = spec.factor * around[place].high
            axis.vlines(place, low, top, color="black", linewidth=1.2)

        # Above the interval, where nothing hides it.
        text = spec.format.text(value) if spec.format is not None else f"{height:.3g}"
        axis.annotate(
            text,
            (place, max(top, height)),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )


# --- over evaluations


def plot_judges(evaluations: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """What the judges that reward and those held out say of each set over RL steps; False without two evaluations.

    Every metric of an evaluation set whose spec has a panel is drawn.

    Args:
        evaluations: records with ``rl_step`` and ``results``, oldest first.
        path: of the picture.
    """
    if len(evaluations) < 2:
        return False

    drawn = judge_panels(evaluations)
    if not drawn:
        return False

    steps = [one["rl_step"] for one in evaluations]
    figure, axes = _figure(len(drawn))
    for axis, (title, curves) in zip(axes, drawn.items(), strict=True):
        # The judge that rewards comes first: a whole line; those held out are dashed.
        style = "-"
        for name, values in curves.items():
            spec = evaluation_spec(name)
            scaled = [spec.factor * value for value in values]
            axis.plot(steps, scaled, style, marker=".", label=spec.words)
            style = "--"

        axis.set_title(label(title), fontsize=9)
        axis.set_xlabel("RL step")
        _legend_below(axis)

    _save(figure, path)
    return True


def judge_panels(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Curves]:
    """Curves by title of their panel: each group of metrics in each set in which all of them are known somewhere.

    Args:
        evaluations: records with ``results``, oldest first.
    """
    names_of_panel: dict[str, list[str]] = {}
    for spec in EVALUATION_METRICS:
        if spec.panel is not None:
            names_of_panel.setdefault(spec.panel, []).append(spec.name)

    drawn: dict[str, Curves] = {}
    for panel, names in names_of_panel.items():
        for set_name in evaluations[0]["results"]:
            results = [one["results"].get(set_name, {}) for one in evaluations]
            curves = _curves(results, names)
            if curves:
                drawn[f"{set_name}: {panel}"] = curves
    return drawn


def _present(results: Sequence[Mapping[str, float]], names: Sequence[str]) -> list[str]:
    """The names, and in place of each pattern the names of results that fit it."""
    of_results = dict.fromkeys(name for metrics in results for name in metrics)
    present = []
    for name in names:
        if "*" in name:
            # Of two patterns the longer one has the metric, as in the table of metrics.
            fitting = [one for one in of_results if EVALUATION_METRICS[one].name == name]
            present += fitting
        else:
            present.append(name)
    return present


def _curves(results: Sequence[Mapping[str, float]], names: Sequence[str]) -> Curves:
    """Values of the metrics over evaluations; empty unless each is known somewhere.

    Of a pattern these are the metrics that fit it, if any do.
    """
    curves = {}
    for name in _present(results, names):
        known = [metrics.get(name) for metrics in results]
        # A report as data has null where a metric is undefined.
        values = [math.nan if value is None else value for value in known]
        if all(map(math.isnan, values)):
            return {}
        curves[name] = values
    return curves
