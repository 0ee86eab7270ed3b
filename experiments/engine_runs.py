"""GRPO by vLLM beside GRPO by our own sampler: the shipped speech system, 30 steps, some seeds of each.

    python -m experiments.engine_runs --python envs/vllm/bin/python --out runs/engine

Prints the mean reward of the first and the last ten steps of each run, the mismatch of the engine, and how far apart
the seeds of either end. With --page the same goes between the two marks of a page. What was run is not run again.
"""

from __future__ import annotations

import argparse
import copy
import textwrap
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.figure_runs import audiorl, made_with, trainer

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "quickstart_tts.yaml"
NUM_STEPS = 30
WINDOW = 10
START_MARK = "<!-- experiments.engine_runs -->"
END_MARK = "<!-- end of experiments.engine_runs -->"


def settings_of(folder: Path, seed: int, engine: dict[str, Any] | None) -> dict[str, Any]:
    """The quickstart for speech, shorter, and evaluated never."""
    settings = yaml.safe_load(CONFIG.read_text())
    settings |= {"seed_everything": seed, "trainer": trainer(folder)}
    model = settings["model"]["init_args"]
    model["num_steps"] = NUM_STEPS
    if engine is not None:
        model["engine"] = engine
    del settings["data"]["init_args"]["val"]
    settings |= {"report": {"enabled": False}, "export": {"enabled": False}}
    return settings


def curve(folder: Path, name: str) -> list[float]:
    """A metric of a run, step by step."""
    events = EventAccumulator(str(folder))
    events.Reload()
    if name not in events.Tags()["scalars"]:
        return []
    return [event.value for event in events.Scalars(name)]


def end_of(folder: Path) -> float:
    """The mean reward of a run's last steps."""
    return fmean(curve(folder, "reward/mean")[-WINDOW:])


def summary(own: list[float], by_vllm: list[float]) -> str:
    """Where the runs of either end, in a sentence."""
    below = sum(value < min(own) for value in by_vllm)
    above = sum(value > max(own) for value in by_vllm)
    within = len(by_vllm) - below - above
    ends = []
    for values in (own, by_vllm):
        spread = f"mean {fmean(values):.3f}, standard deviation {stdev(values):.3f}"
        ends.append(f"between {min(values):.3f} and {max(values):.3f} ({spread})")
    text = (
        f"Our sampler's {len(own)} runs end {ends[0]}, vLLM's {ends[1]}: {within} of {len(by_vllm)} within the "
        f"range of ours, {below} below it and {above} above."
    )
    return textwrap.fill(text, 120)


def write_page(page: Path, lines: list[str]) -> None:
    """Put lines between the marks of a page.

    Raises:
        ValueError: for a page without the marks.
    """
    before, found, rest = page.read_text().partition(START_MARK)
    _, ended, after = rest.partition(END_MARK)
    if not found or not ended:
        raise ValueError(f"{page} has no {START_MARK} with an {END_MARK} behind it")
    text = "\n".join([START_MARK, *lines, END_MARK])
    page.write_text(before + text + after)


def row(name: str, seed: int, folder: Path, seconds: float) -> str:
    """A run as a row of the table."""
    rewards = curve(folder, "reward/mean")
    cells = [
        name,
        str(seed),
        f"{fmean(rewards[:WINDOW]):.3f}",
        f"{fmean(rewards[-WINDOW:]):.3f}",
        f"{max(curve(folder, 'engine/mismatch_max'), default=0.0):.1e}",
        f"{fmean(curve(folder, 'seconds/rollout')[1:]):.2f}",
        f"{fmean(curve(folder, 'seconds/push')[1:] or [0.0]):.3f}",
        f"{seconds:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", required=True, help="of the environment with vLLM")
    parser.add_argument("--out", type=Path, default=Path("runs/engine"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--page", type=Path, help="a Markdown file with the two marks")
    arguments = parser.parse_args()

    init_args = {
        "python": arguments.python,
        "cache_gib": 1,
        "dtype": "float32",
        "arguments": {"enforce_eager": True},
        "environment": {"TORCHDYNAMO_DISABLE": "1"},
    }
    by_vllm = {"class_path": "VllmEngine", "init_args": init_args}
    head = ["completions", "seed", "reward, first 10", "last 10", "largest mismatch"]
    head += ["rollout, s per step", "push, s per step", "whole run, s"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    print("\n".join(lines))

    ends: list[list[float]] = []
    for name, engine in (("our sampler", None), ("vLLM", by_vllm)):
        ends.append([])
        for seed in arguments.seeds:
            folder = arguments.out / f"{name.replace(' ', '_')}_{seed}"
            settings = settings_of(folder, seed, copy.deepcopy(engine))
            seconds = audiorl("fit", settings, folder)
            lines.append(row(name, seed, folder, seconds))
            print(lines[-1], flush=True)
            ends[-1].append(end_of(folder))

    lines += ["", summary(*ends)]
    print(lines[-1])
    if arguments.page is not None:
        made = made_with()
        lines.append(f"Seen on {made['machine']}, {made['threads per run']} thread(s) each.")
        write_page(arguments.page, lines)


if __name__ == "__main__":
    main()
