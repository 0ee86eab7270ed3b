"""What taking turns on the device saves and costs: resident, offload and auto placement of the same run.

    python benchmarks/gpu/placement.py --device cuda --out runs/gpu

A Fun-ASR-Nano with random weights, of the size of the published one on a GPU. Peaks are the allocator's, by phase; on
a CPU, where placement moves nothing and saves nothing, the run only shows that the script works.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from grpo_bench.case import Case
from grpo_bench.plots import PHASES
from grpo_bench.report import table
from grpo_bench.runner import Contestant, compete

LARGE = Case(audio_s=24.0, width=1024, encoder_layers=18, layers=28, heads=16, vocab_size=32000)
TINY = Case(2, audio_s=0.5, group_size=3, new_tokens=4, width=32, layers=2, heads=2, vocab_size=100)


def run(case: Case, models: Path, device: str, share: float) -> dict[str, dict[str, Any]]:
    """Each placement against the others; auto's budget is ``share`` of what all parts together take."""

    def contestant(placement: str, **more: float) -> Contestant:
        return Contestant(placement, "ours", case, placement={"placement": placement, **more})

    # From its second step on the optimizer has its state.
    first = compete([contestant("resident")], models, device, warmup=0, steps=2)
    parts_mib = max(
        v for k, v in first["resident"]["figures"].items() if k.startswith("resident_mib/")
    )
    budget_gb = share * parts_mib / 1024
    placements = [
        contestant("resident"),
        contestant("offload"),
        contestant("auto", budget_gb=budget_gb),
    ]
    return compete(placements, models, device)


def report(results: dict[str, dict[str, Any]]) -> str:
    """Peak memory and seconds by placement and phase, as Markdown."""
    head = ["placement", *PHASES, "step, s", "moved, MiB per step", "moving, s", "of it hidden, s"]
    peaks, seconds = [], []
    for name, result in results.items():
        figures = result["figures"]
        peaks.append(
            [name, *(f"{figures.get(f'peak_mib/{phase}', float('nan')):.0f}" for phase in PHASES)]
        )
        moving = [
            f"{figures.get(f'moving/{key}', 0.0):.3g}"
            for key in ("mib", "seconds", "hidden_seconds")
        ]
        phases = [f"{result['phases'][phase]['median']:.3f}" for phase in PHASES]
        step = result["seconds"]
        seconds.append(
            [name, *phases, f"{step['median']:.3f} [{step['min']:.3f}, {step['max']:.3f}]", *moving]
        )
    return (
        "Peak MiB in use, by phase:\n\n"
        + table(["placement", *PHASES], peaks)
        + "\nSeconds, median of the steps after the warm-up:\n\n"
        + table(head, seconds)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument(
        "--share", type=float, default=0.6, help="auto's budget, of the bytes of all parts"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="shapes that end in seconds; the figures mean nothing"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = run(TINY if args.tiny else LARGE, args.out / "models", args.device, args.share)
    (args.out / "placement.json").write_text(json.dumps(results, indent=1) + "\n")
    text = report(results)
    (args.out / "placement.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
