"""Where the time of our GRPO step goes on the benchmark's case: the heaviest operators of rollout and update.

python benchmarks/step_profile.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from grpo_bench.case import build_model
from grpo_bench.ours import Batches, make_module, make_policy
from grpo_bench.sections import CASE, tiny_plan
from lightning import Trainer
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from lightning_audiorl.algorithms import GRPO


def profiled(call: Callable[..., Any], into: list[tuple[float, profile]]) -> Callable[..., Any]:
    """``call``, with the seconds and the profile of each of its calls kept in ``into``."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with profile(activities=[ProfilerActivity.CPU]) as made:
            start = time.perf_counter()
            out = call(*args, **kwargs)
            seconds = time.perf_counter() - start
        into.append((seconds, made))
        return out

    return run


def table(seconds: float, made: profile, num_rows: int) -> str:
    """Share of the operators' own time, heaviest first."""
    events = sorted(made.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    lines = [
        f"{seconds:.2f} s under the profiler",
        "",
        "| operator | share | calls |",
        "|---|---|---|",
    ]
    lines += [
        f"| {event.key} | {100 * event.self_cpu_time_total / total:.0f} % | {event.count} |"
        for event in events[:num_rows]
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tiny", action="store_true", help="shapes that end in seconds; the figures mean nothing"
    )
    parser.add_argument("--rows", type=int, default=8)
    args = parser.parse_args()
    models = Path("runs/benchmarks/models")
    case = tiny_plan(models).case if args.tiny else CASE
    module: GRPO = make_module(case, make_policy(case, str(build_model(case, models)), naive=False))
    rollouts: list[tuple[float, profile]] = []
    updates: list[tuple[float, profile]] = []
    module.num_steps = 2
    module.policy.sample = profiled(module.policy.sample, rollouts)  # type: ignore[method-assign]
    module.update = profiled(module.update, updates)  # type: ignore[method-assign]
    quiet: dict[str, Any] = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
    }
    trainer = Trainer(
        accelerator="cpu", devices=1, max_epochs=1, enable_checkpointing=False, **quiet
    )
    trainer.fit(module, DataLoader(Batches(case), batch_size=None))
    for name, kept in (("rollout", rollouts), ("update", updates)):
        print(f"\n**{name}**, {torch.get_num_threads()} threads: {table(*kept[-1], args.rows)}")


if __name__ == "__main__":
    main()
