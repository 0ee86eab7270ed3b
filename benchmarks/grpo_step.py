"""One GRPO step, ours against the naive way and against TRL's GRPOTrainer, on the same language model.

    python benchmarks/grpo_step.py                                  # the case: ours, naive, TRL
    python benchmarks/grpo_step.py --sections all --write-docs      # everything; docs/benchmarks.md from it

One process per system, one step at a time in alternating order. Prints each bar with what was reached.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import importlib.util
import json
import platform
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from grpo_bench import worker
from grpo_bench.bars import bars
from grpo_bench.report import comparison, write
from grpo_bench.sections import SECTIONS, Plan, tiny_plan

_PACKAGES = ("torch", "lightning", "transformers", "trl")
_ROOT = Path(__file__).resolve().parents[1]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=_ROOT, capture_output=True, text=True
    )
    changed = subprocess.run(
        ["git", "status", "--porcelain", "lightning_audiorl"], cwd=_ROOT, capture_output=True
    )
    return {
        "processor": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "device": device,
        "commit": (commit.stdout.strip() or "unknown")
        + (" with changes" if changed.stdout else ""),
        "versions": {name: version(name) for name in _PACKAGES if importlib.util.find_spec(name)},
    }


def trl_options() -> str:
    """The list at the head of grpo_bench/trl_side.py, read without importing TRL."""
    source = (_ROOT / "benchmarks" / "grpo_bench" / "trl_side.py").read_text()
    described = ast.get_docstring(ast.parse(source)) or ""
    return "\n".join(described.splitlines()[2:]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sections", nargs="+", default=["case"], choices=[*SECTIONS, "all", "none"]
    )
    parser.add_argument(
        "--sweep", action="store_true", help="the same as adding the section growth"
    )
    parser.add_argument(
        "--before", default="a3a158b", help="commit of the earlier build of the section before"
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its default")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument(
        "--tiny", action="store_true", help="shapes that end in seconds; the figures mean nothing"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/benchmarks/grpo_step.json"), help="added to"
    )
    parser.add_argument(
        "--write-docs", nargs="?", type=Path, const=_ROOT / "docs", help="folder; default docs/"
    )
    parser.add_argument("--worker", choices=worker.SYSTEMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker.main(args.worker, args.device)
        return

    threads = args.threads or torch.get_num_threads()
    models = args.out.parent / "models"
    settings = {
        "threads": threads,
        "max_threads": threads,
        "warmup": args.warmup,
        "steps": args.steps,
    }
    plan = tiny_plan(models, args.device) if args.tiny else Plan(models, args.device, **settings)

    args.out.parent.mkdir(parents=True, exist_ok=True)
    stored: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {}

    names = [name for name in args.sections if name in SECTIONS] + ["growth"] * args.sweep
    chosen = list(SECTIONS if "all" in args.sections else dict.fromkeys(names))
    with ExitStack() as stack:
        if "before" in chosen:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="before-"))
            plan = replace(plan, before=earlier_build(args.before, Path(folder)))
        measure(chosen, plan, args, stored)

    for bar in bars(stored):
        print(bar)

    if args.write_docs:
        remarks = _ROOT / "benchmarks" / "remarks.md"
        write(
            stored,
            trl_options(),
            args.write_docs,
            remarks.read_text() if remarks.is_file() else "",
        )


def earlier_build(commit: str, folder: Path) -> Path:
    """A clone of this repository at ``commit``."""
    # Not for the workers, of which this file is the entry, too.
    from compare_builds import clone

    root = folder / "build"
    clone(_ROOT, commit, root)
    return root


def measure(
    chosen: list[str], plan: Plan, args: argparse.Namespace, stored: dict[str, Any]
) -> None:
    """Run sections and enter them into ``stored`` and its file, one by one."""
    for name in chosen:
        print(f"== {name}", file=sys.stderr, flush=True)
        date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        results = SECTIONS[name](plan)
        stored[name] = {
            "date": date,
            "machine": machine(args.device),
            "threads": plan.threads,
            "results": results,
        }
        if name == "before":
            stored[name]["before"] = args.before
        args.out.write_text(json.dumps(stored, indent=1) + "\n")
        if "ours" in results:
            print(comparison(stored[name], audio=name == "audio"))


if __name__ == "__main__":
    main()
