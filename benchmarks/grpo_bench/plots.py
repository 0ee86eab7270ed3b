"""Plots of the results, as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from grpo_bench.bars import flops

LABELS = {"ours": "ours", "naive": "naive", "trl": "TRL", "trl_as_shipped": "TRL, as shipped"}
PHASES = ("encode", "rollout", "reward", "reference", "update")
AXES = {
    "audio_s": "seconds of audio",
    "group_size": "samples per prompt, G",
    "num_prompts": "prompts, B",
    "width": "width of the model",
    "threads": "threads",
}


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    FigureCanvasAgg(figure).print_png(str(path))


def phase_bars(panels: dict[str, dict[str, Any]], path: Path) -> None:
    """Seconds by phase, stacked, one bar per system; one panel per comparison."""
    figure = Figure(figsize=(4.6 * len(panels), 3.4), dpi=110)
    for number, (title, results) in enumerate(panels.items()):
        axis = figure.add_subplot(1, len(panels), number + 1)
        names = [LABELS.get(name, name) for name in results]
        bottom = [0.0] * len(names)
        for phase in PHASES:
            heights = [r["phases"].get(phase, {"median": 0.0})["median"] for r in results.values()]
            axis.bar(names, heights, bottom=bottom, label=phase)
            bottom = [b + h for b, h in zip(bottom, heights, strict=True)]
        axis.set_title(title, fontsize=10)
        axis.set_ylabel("seconds per step")
        axis.grid(axis="y", alpha=0.3)
    figure.axes[-1].legend(fontsize=8)
    _save(figure, path)


def growth_curves(results: dict[str, Any], path: Path) -> None:
    """Seconds per step along each axis; dashed: our smallest point grown by model FLOPs alone."""
    points: dict[str, dict[str, list[tuple[float, dict[str, Any]]]]] = {}
    for key, result in results.items():
        system, where = key.split("/")
        axis_name, value = where.split("=")
        points.setdefault(axis_name, {}).setdefault(system, []).append((float(value), result))

    figure = Figure(figsize=(3.4 * len(points), 3.2), dpi=110)
    for number, (axis_name, by_system) in enumerate(points.items()):
        axis = figure.add_subplot(1, len(points), number + 1)
        for system, line in by_system.items():
            xs, ys = [x for x, _ in line], [r["seconds"]["median"] for _, r in line]
            axis.plot(xs, ys, marker="o", label=LABELS[system])

        first = by_system["ours"][0][1]
        work = [sum(flops(r).values()) / sum(flops(first).values()) for _, r in by_system["ours"]]
        expected = [first["seconds"]["median"] * w for w in work]
        if axis_name != "threads":
            axis.plot(
                [x for x, _ in by_system["ours"]], expected, "k--", linewidth=0.8, label="by FLOPs"
            )

        axis.set_xlabel(AXES[axis_name])
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)

    figure.axes[0].set_ylabel("seconds per step")
    figure.axes[0].legend(fontsize=8)
    _save(figure, path)
