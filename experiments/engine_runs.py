"""GRPO by vLLM beside GRPO by our own sampler: the shipped speech system, 30 steps, three seeds of each.

    python -m experiments.engine_runs --python envs/vllm/bin/python --out runs/engine

Prints the mean reward of the first and the last ten steps of each run, and the mismatch of the engine.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.figure_runs import audiorl, trainer

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "quickstart_tts.yaml"
NUM_STEPS = 30
WINDOW = 10


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
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for name, engine in (("our sampler", None), ("vLLM", by_vllm)):
        for seed in arguments.seeds:
            folder = arguments.out / f"{name.replace(' ', '_')}_{seed}"
            settings = settings_of(folder, seed, copy.deepcopy(engine))
            seconds = audiorl("fit", settings, folder)
            print(row(name, seed, folder, seconds), flush=True)


if __name__ == "__main__":
    main()
