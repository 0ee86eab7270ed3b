"""The plots of a run report, as PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_audiorl.callbacks.common import Results

_BARS = ("wer", "insertion_rate", "hallucination_rate", "nonspeech_text_rate", "correct_rate", "length_ratio")


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
    """Which training curves share a panel: the reward and its parts, lengths, shares, and the rest one by one."""
    means = [name for name in columns if name.startswith("reward/") and name.endswith("mean")]
    grouped = {
        "reward": [name for name in means if name == "reward/mean"],
        "reward parts": [name for name in means if name != "reward/mean"],
        "loss": ["loss"],
        "KL to the start": ["kl"],
        "entropy": ["entropy"],
        "tokens per sample": ["length/mean", "length/max"],
        "shares": [name for name in columns if name.endswith("_share")],
        "clipped": ["clip_low", "clip_high"],
        "gradient norm": ["grad_norm"],
        "learning rate": ["lr"],
    }
    known = {title: [name for name in names if name in columns] for title, names in grouped.items()}
    return {title: names for title, names in known.items() if names}


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
        key: [name for name, figures in before.items() if not math.isnan(figures.get(key, math.nan))] for key in _BARS
    }
    drawn = {key: names for key, names in defined.items() if names}
    if not drawn:
        return False
    figure, axes = _figure(len(drawn))
    width = 0.8 if after is None else 0.4
    for axis, (key, names) in zip(axes, drawn.items(), strict=True):
        scale = 1 if key == "length_ratio" else 100
        for number, (label, results) in enumerate(zip(labels, (before, after), strict=True)):
            if results is not None:
                heights = [scale * results.get(name, {}).get(key, math.nan) for name in names]
                axis.bar([place + width * number for place in range(len(names))], heights, width, label=label)
        axis.set_xticks([place + (0 if after is None else width / 2) for place in range(len(names))])
        axis.set_xticklabels(names, rotation=30, ha="right", fontsize=8)
        axis.set_title(key.replace("_", " ") + (" (%)" if scale == 100 else ""))
    if after is not None:
        axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    return True
