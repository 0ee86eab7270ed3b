"""The plot of experiments/tts_long.py: error, voice, distance from the start and entropy along each long run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

#: Arm -> colour, the same in every panel.
COLOURS = {
    "GRPO": "tab:blue",
    "DiffRO": "tab:orange",
    "both + filter": "tab:green",
    "both, no filter": "tab:red",
}
#: Title, where the values are, their name, what they are multiplied by.
PANELS = (
    ("CER by our held-out judge, %", "dev", "held_out_cer", 100),
    ("CER by our reward judge, %", "dev", "cer", 100),
    ("CER by Whisper, ten words, %", "ears", "whisper_words_cer", 100),
    ("CER by PocketSphinx, %", "ears", "pocketsphinx_cer", 100),
    ("similarity by our held-out encoder", "dev", "held_out_similarity", 1),
    ("similarity by Resemblyzer", "ears", "resemblyzer_similarity", 1),
    ("tokens per digit", "dev", "tokens_per_unit", 1),
    ("missing stops, %", "dev", "missing_stop_rate", 100),
    ("KL to the start", "log", "kl", 1),
    ("entropy, nats", "log", "entropy", 1),
)


def plot(runs: list[dict[str, Any]], path: Path) -> None:
    """Two rows of panels; seed 0 in full lines, the other seeds thin."""
    panels = [panel for panel in PANELS if any(_series(run, *panel[1:]) for run in runs)]
    columns = (len(panels) + 1) // 2
    figure = Figure(figsize=(3.4 * columns, 6.6))
    FigureCanvasAgg(figure)

    for number, (title, *where) in enumerate(panels):
        axis = figure.add_subplot(2, columns, number + 1)
        _draw(axis, runs, where)
        axis.set_title(title, fontsize=9)

    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), fontsize=9)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=90)


def _draw(axis: Axes, runs: list[dict[str, Any]], where: list[Any]) -> None:
    """One panel: a line for each run, a cross where early stopping would have ended it."""
    for run in runs:
        series = _series(run, *where)
        if not series:
            continue

        steps, values = zip(*series, strict=True)
        is_first = run["seed"] == 0
        axis.plot(
            steps,
            values,
            color=COLOURS[run["arm"]],
            linewidth=1.4 if is_first else 0.6,
            alpha=1.0 if is_first else 0.6,
            marker="." if where[0] == "ears" else None,
            label=run["arm"] if is_first else None,
        )

        stop = early_stop(run)
        on_line = [value for step, value in series if step == stop]
        if on_line and where[0] == "dev":
            axis.plot(stop, on_line[0], "x", color=COLOURS[run["arm"]], markersize=7)

    axis.set_xlabel("RL step", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)


def _series(run: dict[str, Any], kind: str, name: str, factor: float) -> list[tuple[float, float]]:
    """(RL step, value) of one curve of a run; empty where it was not measured."""
    if kind == "ears":
        pairs = [(point["rl_step"], point.get(name)) for point in run["ears"]]
    elif kind == "dev":
        pairs = list(zip(run["evaluated_at"], run["dev"].get(name, []), strict=False))
    else:
        middle = run["steps_a_value"] / 2
        values = run["log"].get(name, [])
        pairs = [(run["steps_a_value"] * i + middle, value) for i, value in enumerate(values)]
    return [(step, factor * value) for step, value in pairs if value is not None]


def early_stop(run: dict[str, Any], patience: int = 3) -> int | None:
    """RL step of the best evaluation by the reward judge, where ``patience`` evaluations after it were no better.

    What a run with early stopping would have kept: it sees the judge that rewards, and none that is held out. None
    where it would have run to its end.

    Example:
        >>> run = {"evaluated_at": [0, 100, 200, 300, 400], "dev": {"cer": [0.4, 0.2, 0.3, 0.3, 0.3]}}
        >>> early_stop(run)
        100
    """
    errors = run["dev"]["cer"]
    best = 0
    for i, error in enumerate(errors):
        if error < errors[best]:
            best = i
        elif i - best >= patience:
            return int(run["evaluated_at"][best])
    return None
