"""The plots of experiments/tts.py."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tts_page import Results, of

#: Title -> figure, factor: ours, and, where they have listened, the real ears.
PANELS = {
    "held-out CER by our judge, %": ("held_out_cer", 100),
    "CER by Whisper base, %": ("whisper_cer", 100),
    "held-out speaker similarity by our encoder": ("held_out_similarity", 1),
    "speaker similarity by Resemblyzer": ("resemblyzer_similarity", 1),
}


def plot(results: Results, path: Path) -> None:
    """A panel for each measure: a bar for each row, a point for each seed."""
    rows = list(dict.fromkeys(row for each in results.values() for row in each))
    panels = {
        title: column
        for title, column in PANELS.items()
        if not any(math.isnan(value) for value in of(results, "start", column[0]))
    }
    figure = Figure(figsize=(11, (0.32 * len(rows) + 1.2) * math.ceil(len(panels) / 2)))
    FigureCanvasAgg(figure)

    for number, (title, (name, factor)) in enumerate(panels.items()):
        axis = figure.add_subplot(math.ceil(len(panels) / 2), 2, number + 1)
        _bars(axis, results, rows, name, factor)
        axis.set_title(title, fontsize=10)
        axis.set_yticks(
            range(len(rows)),
            list(reversed(rows)) if number % 2 == 0 else [""] * len(rows),
            fontsize=8,
        )
        axis.grid(alpha=0.3, axis="x")
        # A cosine of 0 is far away from any of them.
        if factor == 1:
            low = min(min(of(results, row, name)) for row in rows)
            axis.set_xlim(left=max(0.0, low - 0.1))
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def _bars(axis: Axes, results: Results, rows: list[str], name: str, factor: float) -> None:
    """A bar for the mean of each row, the first one at the top, and a point for each seed."""
    for height, row in enumerate(reversed(rows)):
        points = [factor * value for value in of(results, row, name)]
        colour = "tab:gray" if row == "start" else "tab:blue"
        axis.barh(height, statistics.fmean(points), color=colour, alpha=0.5)
        axis.plot(points, [height] * len(points), "k.", markersize=5)
