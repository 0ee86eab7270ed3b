"""The page and the plots of experiments/asr_ablation.py."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from asr_grounds import Ground
from figure_runs import Figures
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BySeed = dict[int, dict[str, Figures]]
"""By seed, row of the table, evaluation set and figure."""

HIGHER_IS_BETTER = ("keyword_f1", "correct_rate")
HEAD = """# What RL is trained on, against what it is paid for

The paper's Table 1 in miniature: GRPO from one start per seed, {num_steps} steps, on subsets of one pool (200 rows
each), for each reward mix. D0 random control; D1 hard (samples of the start disagree); D2 long; D3 keyword-heavy; H
rows whose hypotheses hallucinate; N learnable (some samples right, some wrong); mix: a quarter each of D0, D1, D2, H.
R1 accuracy, R2 hallucination (weight 0.5), R3 keywords (0.5). Percent; mean ± standard deviation over the seeds; greedy
decoding. In brackets: in how many seeds the row beats the start. Made by `python experiments/asr_ablation.py`."""


def values(by_seed: BySeed, row: str, place: tuple[str, str]) -> list[float]:
    """The figure of every seed, in percent."""
    return [
        100 * figures[row][place[0]][place[1]]
        for _, figures in sorted(by_seed.items())
        if row in figures
    ]


def better(by_seed: BySeed, row: str, place: tuple[str, str]) -> int:
    """Seeds in which the row beats the start."""
    sign = 1 if place[1] in HIGHER_IS_BETTER else -1
    both = {seed: figures for seed, figures in by_seed.items() if row in figures}
    pairs = zip(values(both, row, place), values(both, "start", place), strict=True)
    return sum(sign * (mine - start) > 0 for mine, start in pairs)


def cell(by_seed: BySeed, row: str, place: tuple[str, str]) -> str:
    """Mean ± standard deviation (seeds better than the start)."""
    known = [value for value in values(by_seed, row, place) if not math.isnan(value)]
    if not known:
        return "-"
    spread = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    wins = "" if row == "start" else f" ({better(by_seed, row, place)}/{len(known)})"
    return f"{statistics.mean(known):.1f}{spread}{wins}"


def table(ground: Ground, by_seed: BySeed) -> str:
    """One row per data set and reward."""
    rows = [row for figures in by_seed.values() for row in figures]
    lines = ["| | " + " | ".join(ground.columns) + " |", "|---" * (len(ground.columns) + 1) + "|"]
    for row in dict.fromkeys(rows):
        cells = [cell(by_seed, row, place) for place in ground.columns.values()]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def mined_table(rates: dict[str, dict[int, Any]]) -> str:
    """Hallucination rates of mined subsets and their controls on fresh samples."""
    lines = [
        "| ground | chosen among | seed | rows | mined, % | control, % | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, by_seed in rates.items():
        for seed, pools in sorted(by_seed.items()):
            for pool, rate in pools.items():
                ratio = f"{rate['mined'] / rate['control']:.1f}" if rate["control"] else "-"
                rows = f"{rate['rows']['mined']} and {rate['rows']['control']}"
                percent = f"{100 * rate['mined']:.0f} | {100 * rate['control']:.0f}"
                lines.append(f"| {name} | {pool} | {seed} | {rows} | {percent} | {ratio} |")
    return "\n".join(lines)


def page(
    results: dict[str, BySeed],
    rates: dict[str, dict[int, Any]],
    kept: dict[str, Any],
    grounds: dict[str, Ground],
    reading: Path,
) -> str:
    """docs/ablation.md; ``reading`` is a text of a human's that stands behind the head where it exists."""
    parts = [HEAD.format(**kept)]
    if reading.is_file():
        parts.append("## Reading\n\n" + reading.read_text())
    for name, by_seed in results.items():
        seeds = ", ".join(str(seed) for seed in sorted(by_seed))
        parts += [
            f"## {name}, seeds {seeds}",
            table(grounds[name], by_seed),
            f"![{name}](images/ablation_{name}.png)",
        ]
    parts += [
        "## The hallucination subset, on fresh samples",
        "Chosen by the start's hypotheses over the pool (rules fired in at least half of 5), decoded again with other "
        "draws, 8 samples a row; the control has as many rows of each kind and duration (two-second bins).",
        mined_table(rates),
        "*" + "; ".join(f"{key} {value}" for key, value in kept["made_with"].items()) + "*",
    ]
    return "\n\n".join(parts) + "\n"


def plot(ground: Ground, by_seed: BySeed, path: Path) -> None:
    """One panel per column: a bar for each row, a point for each seed."""
    rows = list(dict.fromkeys(row for figures in by_seed.values() for row in figures))

    columns = 4
    num_lines = math.ceil(len(ground.columns) / columns)
    figure = Figure(figsize=(4.0 * columns, (0.24 * len(rows) + 0.7) * num_lines))
    FigureCanvasAgg(figure)
    for number, (title, place) in enumerate(ground.columns.items()):
        axis = figure.add_subplot(num_lines, columns, number + 1)

        for height, row in enumerate(reversed(rows)):
            points = [value for value in values(by_seed, row, place) if not math.isnan(value)]
            if points:
                axis.barh(
                    height,
                    statistics.mean(points),
                    color="tab:gray" if row == "start" else "tab:blue",
                    alpha=0.5,
                )
                axis.plot(points, [height] * len(points), "k.", markersize=4)

        axis.set_title(f"{title}, %", fontsize=9)
        axis.set_yticks(
            range(len(rows)),
            list(reversed(rows)) if number % columns == 0 else [""] * len(rows),
            fontsize=7,
        )
        axis.tick_params(axis="x", labelsize=7)
        axis.grid(alpha=0.3, axis="x")

    figure.tight_layout()
    figure.savefig(path, dpi=90)
