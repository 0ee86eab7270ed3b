"""The paper's Table 1 in miniature: what RL is trained on (D0-D3, hallucination, mixes) against what it is paid for.

    FSDD_ROOT=<folder with recordings/> python experiments/asr_ablation.py --out runs/asr_ablation --seeds 0 1 2

For each seed: `audiorl predict` over the pool with the seed's warm start, then one GRPO run per data set and reward,
then the figures of the evaluation sets. The warm starts of the FSDD ground are made by experiments/fsdd_asr.py; give
their folder with --starts. Ends with docs/ablation.md and its plots (--docs names another folder).
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import asr_grounds as grounds
from ablation_tables import page, plot
from asr_grounds import GROUNDS, Ground
from figure_runs import Figures, Spec, audiorl, fit, made_with, side_by_side, spec, validate
from mined_subset import mined


def predict(ground: Ground, start: str, folder: Path, seed: int) -> Path:
    """Greedy and sampled hypotheses of the start over the pool: the JSONL file."""
    out = folder / "hypotheses.jsonl"
    decodings = ground.greedy() | {"sampled": {"decoding": ground.sampling(), "num_samples": 4}}
    settings: Spec = {
        "models": {"start": ground.policy(start)},
        "rows": ground.pool,
        "out": str(out),
    }
    audiorl("predict", settings | {"decodings": decodings, "seed": seed}, folder)
    return out


def grpo(ground: Ground, start: str, reward: str, num_steps: int) -> Spec:
    """The paper's algorithm with the settings of configs/fsdd/grpo.yaml, and no reward beside the named ones."""
    return spec(
        "algorithms.GRPO",
        policy=ground.policy(start),
        num_steps=num_steps,
        optim={"lr": 3.0e-5, "schedule": "constant", "warmup_steps": 5, "max_grad_norm": 1.0},
        group_size=8,
        beta=0.04,
        rollout_batch_size=12,
        max_tokens=6000,
        decoding=ground.sampling(),
        rewards=spec("rewards.RewardMix", rewards=grounds.REWARDS[reward]),
        eval_decodings=ground.greedy(),
    )


def data_module(ground: Ground, data: str, hypotheses: Path, cache: Path) -> Spec:
    """The RL set of one row of the table, with the evaluation sets."""
    return spec(
        "data.AsrRLDataModule",
        batch_size=ground.batch_size,
        subsets=grounds.subsets(ground, data, hypotheses),
        cache_dir=str(cache),
        val=ground.evaluation,
    )


def chain(
    ground: Ground, seed: int, out: Path, start: str, num_steps: int, only: set[str] | None
) -> dict[str, Figures]:
    """The start and every run of one seed."""
    folder = out / ground.name / f"seed{seed}"
    hypotheses = predict(ground, start, folder / "predict", seed)
    still = spec(
        "algorithms.SFT", policy=ground.policy(start), num_steps=1, eval_decodings=ground.greedy()
    )
    results = {
        "start": validate(
            folder / "start", seed, still, spec("data.AsrDataModule", val=ground.evaluation)
        )
    }
    for data in ground.data:
        for reward in ground.rewards:
            name = f"{data} {reward}"
            if only is None or name in only:
                model = grpo(ground, start, reward, num_steps)
                mix = data_module(ground, data, hypotheses, folder / "rl_data")
                results[name] = fit(folder / name.replace(" ", "_"), seed, model, mix)[1]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/asr_ablation"))
    parser.add_argument(
        "--starts", type=Path, help="--out of experiments/fsdd_asr.py; default runs/fsdd_figures"
    )
    parser.add_argument("--grounds", nargs="+", default=list(GROUNDS), choices=list(GROUNDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num-steps", type=int, default=40)
    parser.add_argument("--only", nargs="+", help='rows to run, such as "D0 R1+R2"; default all')
    parser.add_argument("--jobs", type=int, default=2, help="chains side by side, one thread each")
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs")
    args = parser.parse_args()
    if "fsdd" in args.grounds and not os.environ.get("FSDD_ROOT"):
        parser.error(
            "set FSDD_ROOT to the folder that holds recordings/, or choose --grounds espeak"
        )
    starts = args.starts or Path("runs/fsdd_figures")
    todo = [(GROUNDS[name], seed) for name in args.grounds for seed in args.seeds]
    only = set(args.only) if args.only else None

    def run(ground: Ground, seed: int) -> dict[str, Figures]:
        start = grounds.warm_start(ground.name, seed, starts)
        return chain(ground, seed, args.out, start, args.num_steps, only)

    def mine(ground: Ground, seed: int) -> dict[str, Any]:
        folder = args.out / ground.name / f"seed{seed}"
        start = grounds.warm_start(ground.name, seed, starts)
        hypotheses = folder / "predict" / "hypotheses.jsonl"
        pools = {"everything": False, "speech": True}
        return {
            name: mined(ground, start, folder / "mined" / name, hypotheses, seed, only_speech)
            for name, only_speech in pools.items()
        }

    done = side_by_side([lambda g=g, s=s: run(g, s) for g, s in todo], args.jobs)
    fresh = side_by_side([lambda g=g, s=s: mine(g, s) for g, s in todo], args.jobs)
    results: dict[str, dict[int, Any]] = {name: {} for name in args.grounds}
    rates: dict[str, dict[int, Any]] = {name: {} for name in args.grounds}
    for (ground, seed), figures, rate in zip(todo, done, fresh, strict=True):
        results[ground.name][seed] = figures
        rates[ground.name][seed] = rate
    kept = {
        "figures": results,
        "mined": rates,
        "num_steps": args.num_steps,
        "made_with": made_with(),
    }
    (args.out / "ablation.json").write_text(json.dumps(kept, indent=1))
    images = args.docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    for name, by_seed in results.items():
        plot(GROUNDS[name], by_seed, images / f"ablation_{name}.png")
    (args.docs / "ablation.md").write_text(
        page(results, rates, kept, GROUNDS, args.docs / "ablation_reading.md")
    )
    print(args.docs / "ablation.md")


if __name__ == "__main__":
    main()
