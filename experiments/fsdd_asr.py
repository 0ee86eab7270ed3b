"""The figures of docs/results.md's FSDD table: warm start, then GRPO, MWER and the SFT control, three seeds.

    FSDD_ROOT=<folder with recordings/> python experiments/fsdd_asr.py --out runs/fsdd_figures --seeds 0 1 2

Every step is an ``audiorl`` command on the configs in configs/fsdd; what is already in the output folder is not done
again, so an interrupted run goes on. Ends with <out>/table.md (see fsdd_tables.py) and <out>/table.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from fsdd_tables import SYSTEMS, by_seed, by_set, summary

from lightning_audiorl.data import FsddDigits
from lightning_audiorl.metrics import AsrMetrics
from lightning_audiorl.models import DIGIT_WORDS
from lightning_audiorl.ops import keyed_generator
from lightning_audiorl.types import Hypothesis

CONFIGS = Path(__file__).parents[1] / "configs" / "fsdd"
SETS = {"short": (1, 7, 1000), "medium": (8, 16, 300), "long": (20, 40, 100)}


def audiorl(log: Path, *args: str) -> float:
    """Run one command; returns its wall-clock seconds."""
    start = time.perf_counter()
    with log.open("w") as out:
        subprocess.run(
            [sys.executable, "-m", "lightning_audiorl", *args], stdout=out, stderr=out, check=True
        )
    return time.perf_counter() - start


def fit(out: Path, seed: int, configs: list[str], start: Path | None, extra: list[str]) -> Path:
    """One training run in ``out``; returns the exported folder."""
    exported = out / "export"
    if (out / "seconds.json").is_file():
        return exported
    out.mkdir(parents=True, exist_ok=True)
    args = [arg for name in configs for arg in ("--config", str(CONFIGS / name))]
    args += ["--seed_everything", str(seed), "--trainer.default_root_dir", str(out)]
    # A run that was broken off is begun anew where the figures are looked for.
    args += ["--trainer.num_sanity_val_steps", "0", "--overwrite", *extra]
    if start is not None:
        args += ["--model.init_args.policy.init_args.init_from", str(start)]
    else:
        args += ["--model.init_args.policy.init_args.init_from.init_args.seed", str(seed)]
    seconds = audiorl(out / "fit.log", "fit", *args)
    (out / "seconds.json").write_text(json.dumps(seconds))
    return exported


def evaluate(folder: Path, out: Path) -> dict[str, dict[str, float]]:
    """Figures of one exported model on the test sets."""
    report = out / "validate" / "report" / "validate.json"
    if not report.is_file():
        out.mkdir(parents=True, exist_ok=True)
        args = ["--config", str(CONFIGS / "test.yaml"), "--trainer.default_root_dir", str(out)]
        args += ["--model.init_args.policy.init_args.init_from", str(folder)]
        audiorl(out / "validate.log", "validate", *args)
    return json.loads(report.read_text())["evaluations"][-1]["results"]


def floor() -> dict[str, dict[str, float]]:
    """Random digits at the right length: what a figure is worth that hears nothing."""
    results = {}
    for name, (low, high, num_rows) in SETS.items():
        rows = FsddDigits(None, "test", (low, high), num_rows, exclude_speakers=["theo"])
        metric = AsrMetrics()
        for row in rows:
            words = row.text.split()
            draws = torch.randint(
                10, (len(words),), generator=keyed_generator("floor", row.id)
            ).tolist()
            metric.update([Hypothesis(row, " ".join(DIGIT_WORDS[i] for i in draws))])
        results[name] = {key: float(value) for key, value in metric.compute().items()}
    return results


def chain(
    out: Path, seed: int, control_steps: int | None, warm_steps: list[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Warm start, three ways on from it, and the figures of all four."""
    root = out / f"seed{seed}"
    start = fit(root / "warm_start", seed, ["warm_start.yaml"], None, warm_steps)
    models = {"start": start}
    models["grpo"] = fit(root / "grpo", seed, ["rl_data.yaml", "grpo.yaml"], start, [])
    models["mwer"] = fit(root / "mwer", seed, ["rl_data.yaml", "mwer.yaml"], start, [])
    steps = [] if control_steps is None else ["--model.init_args.num_steps", str(control_steps)]
    models["control"] = fit(root / "control", seed, ["rl_data.yaml", "control.yaml"], start, steps)
    return {system: evaluate(models[system], root / "test" / system) for system in SYSTEMS}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/fsdd_figures"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--control-steps", type=int, help="steps of the SFT control; default: its config's"
    )
    parser.add_argument("warm", nargs="*", help="further arguments of the warm start")
    args = parser.parse_args()
    if not os.environ.get("FSDD_ROOT"):
        parser.error("set FSDD_ROOT to the folder that holds recordings/")

    figures = {seed: chain(args.out, seed, args.control_steps, args.warm) for seed in args.seeds}
    floors = floor()
    seconds = {
        str(path.parent.relative_to(args.out)): json.loads(path.read_text())
        for path in sorted(args.out.glob("seed*/*/seconds.json"))
    }

    result = {"figures": figures, "floor": floors, "seconds": seconds}
    (args.out / "table.json").write_text(json.dumps(result, indent=1))

    parts = [
        ("Greedy", summary(figures, floors)),
        ("Sampled at temperature 1, mean of 4", summary(figures, floors, "sampled")),
        ("Each seed, greedy: start → GRPO → control", by_seed(figures)),
        ("Every set and decoding", by_set(figures, floors)),
    ]
    text = "\n\n".join(f"### {title}\n\n{table}" for title, table in parts)
    (args.out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
