"""The plots of experiments/real/page.py."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.real.arms import ARMS
from experiments.real.judgement import ratio, sampled_text, wer
from experiments.real.records import of

_COLOURS = {
    "grpo": "tab:orange",
    "grpo_reference": "tab:blue",
    "grpo_sft": "tab:green",
    "mwer": "tab:brown",
    "sft": "black",
    "grpo_reference_random": "tab:purple",
    "grpo_reference_lora": "tab:cyan",
}


def along(kept: dict[str, Any], path: Path) -> None:
    """P of the empty answer and WER on dev over the steps, a line for each seed; SFT's steps are shorter."""
    figure = Figure(figsize=(11, 3.6))
    FigureCanvasAgg(figure)
    likely = figure.add_subplot(1, 2, 1)
    error = figure.add_subplot(1, 2, 2)

    for arm, colour in _COLOURS.items():
        for number, run in enumerate(of(kept, arm)):
            label = ARMS[arm] if number == 0 else None
            if run["probes"]:
                steps, shares = zip(*run["probes"], strict=True)
                likely.plot(steps, shares, color=colour, label=label, linewidth=1.2, alpha=0.8)
            looks = [look for look in run["looks"] if look["dev_wer"] is not None]
            error.plot(
                [look["step"] for look in looks],
                [100 * look["dev_wer"] for look in looks],
                color=colour,
                marker=".",
                linewidth=1.2,
                alpha=0.8,
            )

    likely.set_title("probability of the empty answer to non-speech", fontsize=10)
    error.set_title("WER % on the dev prompts, numbers read", fontsize=10)
    for axis in (likely, error):
        axis.set_xlabel("step", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    likely.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def bars(kept: dict[str, Any], path: Path) -> None:
    """Three panels: a bar for each arm, a point for each seed."""
    arms = [arm for arm in ARMS if of(kept, arm)]
    panels = {"test prompts, WER %": lambda run: 100 * wer(run, "prompts")}
    if "long" in kept["rows"]:
        panels["long audio, WER %"] = lambda run: 100 * wer(run, "long")
    panels["samples with text on non-speech, %"] = lambda run: 100 * ratio(run, sampled_text)

    figure = Figure(figsize=(11, 0.32 * len(arms) + 1.2))
    FigureCanvasAgg(figure)
    for number, (title, measure) in enumerate(panels.items(), start=1):
        axis = figure.add_subplot(1, len(panels), number)
        for height, arm in enumerate(reversed(arms)):
            points = [measure(run) for run in of(kept, arm)]
            colour = _COLOURS.get(arm, "tab:gray")
            axis.barh(height, statistics.fmean(points), color=colour, alpha=0.5)
            axis.plot(points, [height] * len(points), "k.", markersize=5)
        axis.set_title(title, fontsize=10)
        names = [ARMS[arm] for arm in reversed(arms)] if number == 1 else [""] * len(arms)
        axis.set_yticks(range(len(arms)), names, fontsize=8)
        axis.grid(alpha=0.3, axis="x")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
