"""The plots of a run report, as PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
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

#: Values over evaluations by metric.
Curves = dict[str, list[float]]


def _figure(num_panels: int, columns: int = 3) -> tuple[Figure, list[Any]]:
    """A figure and the axes of its panels, row by row."""
    columns = min(columns, num_panels)
    rows = math.ceil(num_panels / columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * rows))

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

    Args:
        steps: RL steps.
        columns: values at these steps by log key.
        path: of the picture.
    """
    grouped = panels(columns)
    if not steps or not grouped:
        return False

    figure, axes = _figure(len(grouped))
    for axis, (title, names) in zip(axes, grouped.items(), strict=True):
        for name in names:
            axis.plot(steps, columns[name], label=label(name), linewidth=1.2)

        if title == "reward" and "reward/std" in columns:
            pairs = list(zip(columns["reward/mean"], columns["reward/std"], strict=True))
            low = [mean - std for mean, std in pairs]
            high = [mean + std for mean, std in pairs]
            axis.fill_between(steps, low, high, alpha=0.2)

        axis.set_title(title)
        axis.set_xlabel("RL step")
        if len(names) > 1:
            axis.legend(fontsize=7)

    _save(figure, path)
    return True


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
    axis.legend(fontsize=7)

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
) -> bool:
    """Bars of the main metrics, before and after, of every set where they are defined; False without any.

    Args:
        before: metrics by "<set>" or "<set>/<decoding>".
        after: the same later on.
        labels: what the two are called.
        path: of the picture.
    """
    drawn = _bars(before)
    if not drawn:
        return False

    figure, axes = _figure(len(drawn))
    width = 0.8 if after is None else 0.4
    for axis, (spec, names) in zip(axes, drawn, strict=True):
        places = range(len(names))
        for number, results in enumerate((before, after)):
            if results is None:
                continue
            values = [results.get(name, {}).get(spec.name, math.nan) for name in names]
            heights = [spec.factor * value for value in values]
            lefts = [place + width * number for place in places]
            axis.bar(lefts, heights, width, label=labels[number])

        # A set's name stands in the middle of its bars.
        middle = 0 if after is None else width / 2
        axis.set_xticks([place + middle for place in places])
        axis.set_xticklabels([label(name) for name in names], rotation=30, ha="right", fontsize=8)
        unit = " (%)" if spec.factor == 100 else ""
        axis.set_title(spec.words + unit)

    if after is not None:
        axes[0].legend(fontsize=7)
    _save(figure, path)
    return True


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
        # The judge that rewards comes first: a whole line; the one held out is dashed.
        styles = cycle(("-", "--"))
        for name, values in curves.items():
            spec = evaluation_spec(name)
            scaled = [spec.factor * value for value in values]
            axis.plot(steps, scaled, next(styles), marker=".", label=spec.words)

        axis.set_title(label(title), fontsize=9)
        axis.set_xlabel("RL step")
        axis.legend(fontsize=7)

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


def _curves(results: Sequence[Mapping[str, float]], names: Sequence[str]) -> Curves:
    """Values of the metrics over evaluations; empty unless each is known somewhere."""
    curves = {}
    for name in names:
        known = [metrics.get(name) for metrics in results]
        # A report as data has null where a metric is undefined.
        values = [math.nan if value is None else value for value in known]
        if all(map(math.isnan, values)):
            return {}
        curves[name] = values
    return curves
