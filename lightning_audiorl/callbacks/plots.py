"""The plots of a run report, as PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_audiorl.callbacks.metric_table import shown_metrics
from lightning_audiorl.callbacks.view import Results
from lightning_audiorl.metrics.specs import EVALUATION_METRICS, STEP_METRICS, evaluation_spec


def _figure(num_panels: int, columns: int = 3) -> tuple[Figure, list[Any]]:
    columns = min(columns, num_panels)
    rows = math.ceil(num_panels / columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * rows))
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(num_panels)]
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure, axes


def panels(columns: Mapping[str, Sequence[float]]) -> dict[str, list[str]]:
    """Which training curves share a panel, by its title: panels, and curves in them, in the order of `STEP_METRICS`."""
    specs = list(STEP_METRICS)
    place = {spec.name: number for number, spec in enumerate(specs)}
    names = sorted(columns, key=lambda name: place.get(STEP_METRICS[name].name, len(specs)))

    grouped: dict[str, list[str]] = {}
    for name in names:
        panel = STEP_METRICS[name].panel
        if panel is not None:
            grouped.setdefault(panel, []).append(name)
    return grouped


def plot_curves(steps: Sequence[int], columns: Mapping[str, Sequence[float]], path: Path) -> bool:
    """Training curves over RL steps; False when there is nothing to draw."""
    grouped = panels(columns)
    if not steps or not grouped:
        return False
    figure, axes = _figure(len(grouped))
    for axis, (title, names) in zip(axes, grouped.items(), strict=True):
        for name in names:
            axis.plot(steps, columns[name], label=name, linewidth=1.2)
        if title == "reward" and "reward/std" in columns:
            pairs = list(zip(columns["reward/mean"], columns["reward/std"], strict=True))
            axis.fill_between(steps, [m - s for m, s in pairs], [m + s for m, s in pairs], alpha=0.2)
        axis.set_title(title)
        axis.set_xlabel("RL step")
        if len(names) > 1:
            axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    return True


def plot_seconds(steps: Sequence[int], columns: Mapping[str, Sequence[float]], path: Path) -> bool:
    """Seconds of each phase over RL steps, one on the other."""
    names = [name for name in columns if name.startswith("seconds/")]
    if not steps or not names:
        return False
    figure, (axis,) = _figure(1)
    stacked = [[0.0 if math.isnan(second) else second for second in columns[name]] for name in names]
    axis.stackplot(steps, stacked, labels=[name.removeprefix("seconds/") for name in names])
    axis.set_title("seconds per phase")
    axis.set_xlabel("RL step")
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    return True


def plot_figures(before: Results, after: Results | None, labels: tuple[str, str], path: Path) -> bool:
    """Bars of the main figures, before and after, of every set where they are defined; False without any."""
    defined = {
        spec.name: [name for name, figures in before.items() if not math.isnan(figures.get(spec.name, math.nan))]
        for spec in sorted(shown_metrics(before), key=lambda spec: spec.bars or 0)
        if spec.bars is not None
    }
    drawn = {key: names for key, names in defined.items() if names}
    if not drawn:
        return False
    figure, axes = _figure(len(drawn))
    width = 0.8 if after is None else 0.4
    for axis, (key, names) in zip(axes, drawn.items(), strict=True):
        spec = evaluation_spec(key)
        scale = 1.0 if spec.format is None else spec.format.factor
        for number, (label, results) in enumerate(zip(labels, (before, after), strict=True)):
            if results is not None:
                heights = [scale * results.get(name, {}).get(key, math.nan) for name in names]
                axis.bar([place + width * number for place in range(len(names))], heights, width, label=label)
        axis.set_xticks([place + (0 if after is None else width / 2) for place in range(len(names))])
        axis.set_xticklabels(names, rotation=30, ha="right", fontsize=8)
        axis.set_title(spec.words + (" (%)" if scale == 100 else ""))
    if after is not None:
        axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    return True


def plot_judges(evaluations: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """What the judges that reward and those held out say of each set over RL steps; False without two evaluations.

    A metric of `EVALUATION_METRICS` with a panel is drawn there.

    Args:
        evaluations: records with ``rl_step`` and ``results``, oldest first.
        path: of the picture.
    """
    steps = [one["rl_step"] for one in evaluations]
    names = list(evaluations[0]["results"]) if evaluations else []
    keys_of_panel: dict[str, list[str]] = {}
    for spec in EVALUATION_METRICS:
        if spec.panel is not None:
            keys_of_panel.setdefault(spec.panel, []).append(spec.name)

    drawn: dict[tuple[str, str], dict[str, list[float]]] = {}
    for title, keys in keys_of_panel.items():
        for name in names:
            curves = _curves([one["results"].get(name, {}) for one in evaluations], keys)
            if curves:
                drawn[title, name] = curves
    if len(steps) < 2 or not drawn:
        return False
    figure, axes = _figure(len(drawn))
    for axis, ((title, name), curves) in zip(axes, drawn.items(), strict=True):
        for (key, values), style in zip(curves.items(), cycle(("-", "--")), strict=False):
            form = evaluation_spec(key).format
            scale = 1.0 if form is None else form.factor
            axis.plot(steps, [scale * value for value in values], style, marker=".", label=key.replace("_", " "))
        axis.set_title(f"{name}: {title}", fontsize=9)
        axis.set_xlabel("RL step")
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    return True


def _curves(results: Sequence[Mapping[str, float]], keys: Sequence[str]) -> dict[str, list[float]]:
    """Values of both figures over evaluations; empty unless each is known somewhere."""
    curves = {key: [figures.get(key, math.nan) for figures in results] for key in keys}
    known = all(any(not math.isnan(value) for value in values) for values in curves.values())
    return curves if known else {}
