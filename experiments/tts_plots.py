"""The plots of experiments/tts.py."""

from __future__ import annotations

import statistics
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tts_page import Results, of


def plot(results: Results, path: Path) -> None:
    """A panel each for held-out CER and similarity: a bar for each row, a point for each seed."""
    rows = list(dict.fromkeys(row for each in results.values() for row in each))
    figure = Figure(figsize=(11, 0.32 * len(rows) + 1.2))
    FigureCanvasAgg(figure)
    panels = {
        "held-out CER, %": ("held_out_cer", 100),
        "held-out speaker similarity": ("held_out_similarity", 1),
    }
    for number, (title, (name, factor)) in enumerate(panels.items(), start=1):
        axis = figure.add_subplot(1, 2, number)
        for height, row in enumerate(reversed(rows)):
            points = [factor * value for value in of(results, row, name)]
            axis.barh(
                height,
                statistics.fmean(points),
                color="tab:gray" if row == "start" else "tab:blue",
                alpha=0.5,
            )
            axis.plot(points, [height] * len(points), "k.", markersize=5)
        axis.set_title(title, fontsize=10)
        axis.set_yticks(
            range(len(rows)), list(reversed(rows)) if number == 1 else [""] * len(rows), fontsize=8
        )
        axis.grid(alpha=0.3, axis="x")
    if panels:
        low = min(min(of(results, row, "held_out_similarity")) for row in rows)
        figure.axes[1].set_xlim(left=max(0.0, low - 0.1))
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def curves(runs: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Figures of dev along the long runs."""
    names = {
        "held_out_cer": "held-out CER",
        "cer": "reward judge's CER",
        "held_out_similarity": "held-out similarity",
    }
    names |= {"tokens_per_unit": "tokens per digit"}
    figure = Figure(figsize=(13, 3.2))
    FigureCanvasAgg(figure)
    for number, (name, title) in enumerate(names.items(), start=1):
        axis = figure.add_subplot(1, len(names), number)
        for row, curve in runs.items():
            axis.plot(curve["rl_step"], curve[name], label=row, linewidth=1.2)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("RL step", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
