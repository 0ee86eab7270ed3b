"""Few labels, few steps: RL beside SFT on a speaker that the model has never heard; and RL and SFT taking turns.

    FSDD_ROOT=<folder with recordings/> python experiments/little_data.py --out runs/little_data --seeds 0

From the warm starts of experiments/fsdd_asr.py (--starts), which have not heard one of the FSDD speakers: GRPO and SFT
on 5, 20 and 100 % of that speaker's labelled utterances for 10, 40 and 160 steps; then three rounds of RL followed by
SFT on the other speakers. Ends with docs/little_data.md and its plot.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from asr_ablation import grpo
from asr_grounds import FSDD, Ground, builders, warm_start
from figure_runs import Figures, Spec, fit, made_with, side_by_side, spec, validate
from little_data_page import page, plot

NEW = "theo"
NUM_LABELLED = 400
SHARES = (0.05, 0.2, 1.0)
STEPS = (10, 40, 160)
ROUNDS = 3
ROUND_STEPS = 40


def evaluation() -> dict[str, Spec]:
    """The new speaker's test recordings; the known speakers and non-speech tell what was forgotten."""
    new = {"part": "test", "only_speakers": [NEW]}
    return {
        "new_short": spec("data.FsddDigits", num_words=[1, 7], num_rows=200, **new),
        "new_medium": spec("data.FsddDigits", num_words=[8, 16], num_rows=60, **new),
    } | {name: FSDD.evaluation[name] for name in ("short", "medium", "long", "nonspeech")}


def labelled(share: float) -> Spec:
    """A share of the new speaker's utterances, drawn by the seed of the run."""
    new = {"part": "train", "only_speakers": [NEW], "seed": 4}
    source = spec("data.FsddDigits", num_words=[1, 16], num_rows=NUM_LABELLED, **new)
    rows = round(share * NUM_LABELLED)
    return {
        "labelled": {"source": source, "builder": spec("data.subsets.RandomControl", num_rows=rows)}
    }


def sft(ground: Ground, start: str, num_steps: int) -> Spec:
    """Supervised finetuning with the optimiser of `grpo`."""
    return spec(
        "algorithms.SFT",
        policy=ground.policy(start),
        num_steps=num_steps,
        micro_batch_size=6,
        optim={"lr": 3.0e-5, "schedule": "constant", "warmup_steps": 5, "max_grad_norm": 1.0},
        eval_decodings=ground.greedy(),
    )


def data(subsets: dict[str, Spec], cache: Path, sets: dict[str, Spec]) -> Spec:
    """The training rows of a run and its evaluation sets."""
    cached = {"cache_dir": str(cache), "batch_size": FSDD.batch_size}
    return spec("data.AsrRLDataModule", subsets=subsets, val=sets, **cached)


def model(kind: str, start: str, num_steps: int) -> Spec:
    """GRPO or SFT from ``start``."""
    return grpo(FSDD, start, "R1+R2", num_steps) if kind == "GRPO" else sft(FSDD, start, num_steps)


def still(folder: Path, seed: int, start: str, sets: dict[str, Spec]) -> Figures:
    """The figures of a start."""
    module = spec(
        "algorithms.SFT", policy=FSDD.policy(start), num_steps=1, eval_decodings=FSDD.greedy()
    )
    return validate(folder / "start", seed, module, spec("data.AsrDataModule", val=sets))


def few_labels(folder: Path, seed: int, start: str) -> dict[str, Callable[[], Figures]]:
    """The start, and GRPO and SFT by share of labels and steps: what to run, by name."""
    sets = evaluation()

    def run(share: float, kind: str, steps: int) -> Figures:
        rows = data(labelled(share), folder / "rl_data", sets)
        return fit(
            folder / f"{kind}_{100 * share:g}_{steps}", seed, model(kind, start, steps), rows
        )[1]

    return {"start": lambda: still(folder, seed, start, sets)} | {
        f"{kind} {100 * share:g} % {steps}": partial(run, share, kind, steps)
        for share in SHARES
        for kind in ("GRPO", "SFT")
        for steps in STEPS
    }


def last_reward(report: Path) -> float:
    """Mean reward of the last ten RL steps of a run."""
    curve = json.loads(report.read_text())["history"]["reward/mean"]
    return statistics.mean(value for value in curve[-10:] if value is not None)


def rounds(folder: Path, seed: int, start: str) -> list[dict[str, Any]]:
    """RL and SFT in turn on the random control of the known speakers; each goes on from the other's export."""
    sets = {name: FSDD.evaluation[name] for name in ("short", "medium", "long", "nonspeech")}
    subsets = {"D0": {"source": FSDD.pool, "builder": builders(FSDD)["D0"]}}
    out: list[dict[str, Any]] = [
        {"stage": "start", "reward": None, "figures": still(folder, seed, start, sets)}
    ]
    for number in range(1, ROUNDS + 1):
        for kind in ("GRPO", "SFT"):
            run = folder / f"round{number}_{kind}"
            settings = model(kind, start, ROUND_STEPS)
            exported, figures = fit(
                run, seed + number, settings, data(subsets, folder / "rl_data", sets)
            )
            reward = last_reward(run / "report" / "report.json") if kind == "GRPO" else None
            out.append({"stage": f"round {number}: {kind}", "reward": reward, "figures": figures})
            start = str(exported)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/little_data"))
    parser.add_argument(
        "--starts",
        type=Path,
        default=Path("runs/fsdd_figures"),
        help="--out of experiments/fsdd_asr.py",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs")
    args = parser.parse_args()
    if not os.environ.get("FSDD_ROOT"):
        parser.error("set FSDD_ROOT to the folder that holds recordings/")

    jobs: dict[tuple[int, str], Callable[[], Any]] = {}
    for seed in args.seeds:
        start, folder = warm_start("fsdd", seed, args.starts), args.out / f"seed{seed}"
        jobs[seed, "rounds"] = partial(rounds, folder / "rounds", seed, start)
        jobs |= {
            (seed, name): job for name, job in few_labels(folder / "labels", seed, start).items()
        }

    done = dict(zip(jobs, side_by_side(list(jobs.values()), args.jobs), strict=True))
    turns = {seed: done[seed, "rounds"] for seed in args.seeds}
    labels = {
        seed: {name: done[s, name] for s, name in done if s == seed and name != "rounds"}
        for seed in args.seeds
    }

    kept = {"labels": labels, "rounds": turns, "made_with": made_with()}
    (args.out / "little_data.json").write_text(json.dumps(kept, indent=1))

    (args.docs / "images").mkdir(parents=True, exist_ok=True)
    plot(labels, SHARES, STEPS, args.docs / "images" / "little_data.png")
    text = page(
        labels, turns, SHARES, STEPS, kept["made_with"], args.docs / "little_data_reading.md"
    )
    (args.docs / "little_data.md").write_text(text)
    print(args.docs / "little_data.md")


if __name__ == "__main__":
    main()
