"""The page and the plot of experiments/little_data.py."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figure_runs import Figures
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BySeed = dict[int, dict[str, Figures]]
COLUMNS = {
    "new speaker, short WER": ("new_short", "wer"),
    "new speaker, medium WER": ("new_medium", "wer"),
    "new speaker, medium correct": ("new_medium", "correct_rate"),
    "known speakers, short WER": ("short", "wer"),
    "known speakers, medium WER": ("medium", "wer"),
    "long WER": ("long", "wer"),
    "long insertions": ("long", "insertion_rate"),
    "text on non-speech": ("nonspeech", "nonspeech_text_rate"),
}
HEAD = """# Few labels, few steps

A speaker that the start has never heard, 400 labelled utterances of 1 to 16 digits of that speaker's, and a share of
them for training; GRPO (R1 + R2) and SFT with the same optimiser and batches of 12. Evaluated on other recordings of
the speaker, and on the speakers that the start knows. Percent; mean ± standard deviation over the seeds where there are
several. Made by `python experiments/little_data.py`."""


def cell(values: Sequence[float]) -> str:
    """Mean ± standard deviation of shares, in percent."""
    known = [100 * value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    return f"{statistics.mean(known):.1f}" + (
        f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    )


def labels_table(labels: BySeed) -> str:
    """One row per method, share of labels and steps."""
    names = list(next(iter(labels.values())))
    lines = [
        "| run (labels, steps) | " + " | ".join(COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for name in names:
        cells = [
            cell([figures[name][s][f] for figures in labels.values()]) for s, f in COLUMNS.values()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rounds_table(rounds: dict[int, list[dict[str, Any]]]) -> str:
    """One row per stage: mean reward of its last ten steps, and figures that no reward reads."""
    columns = {name: place for name, place in COLUMNS.items() if not place[0].startswith("new")}
    lines = ["| stage | reward | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for stages in zip(*rounds.values(), strict=True):
        rewards = [stage["reward"] for stage in stages if stage["reward"] is not None]
        reward = f"{statistics.mean(rewards):.3f}" if rewards else "-"
        cells = [cell([stage["figures"][s][f] for stage in stages]) for s, f in columns.values()]
        lines.append(f"| {stages[0]['stage']} | {reward} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(
    labels: BySeed,
    rounds: dict[int, list[dict[str, Any]]],
    shares: Sequence[float],
    steps: Sequence[int],
    made_with: dict[str, str],
    reading: Path,
) -> str:
    """docs/little_data.md; ``reading`` is a text of a human's that stands behind the head where it exists."""
    seeds = ", ".join(str(seed) for seed in labels)
    parts = [HEAD]
    if reading.is_file():
        parts.append("## Reading\n\n" + reading.read_text())
    parts += [
        f"## RL beside SFT, seed(s) {seeds}",
        labels_table(labels),
        "![few labels](images/little_data.png)",
        f"## RL and SFT in turn, seed(s) {seeds}",
        "On 200 random rows of the known speakers' pool (D0 of the ablation); every stage goes on from the one before, "
        "and its KL penalty is to that one. Reward: R1 + R2, mean over the last ten steps.",
        rounds_table(rounds),
        "*" + "; ".join(f"{key} {value}" for key, value in made_with.items()) + "*",
    ]
    return "\n\n".join(parts) + "\n"


def plot(labels: BySeed, shares: Sequence[float], steps: Sequence[int], path: Path) -> None:
    """Four figures over steps: a line for each method and share."""
    shown = list(COLUMNS.items())[:2] + [
        (name, COLUMNS[name]) for name in ("known speakers, medium WER", "text on non-speech")
    ]

    figure = Figure(figsize=(4.2 * len(shown), 3.4))
    FigureCanvasAgg(figure)
    for number, (title, (name, key)) in enumerate(shown):
        axis = figure.add_subplot(1, len(shown), number + 1)

        start = statistics.mean(figures["start"][name][key] for figures in labels.values())
        axis.axhline(100 * start, color="gray", linestyle=":", label="start")

        for colour, kind in (("tab:blue", "GRPO"), ("tab:orange", "SFT")):
            for style, share in zip((":", "--", "-"), shares, strict=True):
                runs = [f"{kind} {100 * share:g} % {step}" for step in steps]
                means = [
                    100 * statistics.mean(by[run][name][key] for by in labels.values())
                    for run in runs
                ]
                axis.plot(
                    steps,
                    means,
                    style,
                    color=colour,
                    marker="o",
                    markersize=3,
                    label=f"{kind} {100 * share:g} %",
                )

        axis.set_xscale("log")
        axis.set_xticks(steps, [str(step) for step in steps])
        axis.set_xlabel("steps")
        axis.set_title(f"{title}, %", fontsize=9)
        axis.grid(alpha=0.3)

    figure.axes[0].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
