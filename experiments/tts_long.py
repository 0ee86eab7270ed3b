"""The paper's Figure 3 in miniature: GRPO, DiffRO and both, 1,500 steps, heard by machines that nobody here trained.

    FSDD_ROOT=<folder with recordings/> python experiments/tts_long.py --whisper <folder> --resemblyzer <file>

Wants the parts and the starts of `experiments/tts.py`, and makes those that are not there. A run that is killed goes on
from its last checkpoint; what was heard is not heard again. ``--report`` only writes the page of what there is. Ends
with docs/tts_long.md, docs/tts_long.json (the curves as data) and docs/images/tts_long.png.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

import tts_ears
import tts_runs
from figure_runs import made_with, side_by_side
from tts import NUM_EAR_TEXTS, heard
from tts_long_page import page
from tts_long_plot import plot
from tts_long_runs import ARMS, folder_of, long_run, model_at, points

#: Texts that the real ears hear at each point.
NUM_TEXTS = 50
#: Steps of the log that one value of the page's data is the mean of.
STEPS_A_VALUE = 25
#: What the log says along the way.
LOGGED = ("entropy", "kl", "reward/mean", "length/mean", "diffro/used_share")
#: What the judges that were trained here hear at each evaluation.
HEARD = (
    "cer",
    "held_out_cer",
    "similarity",
    "held_out_similarity",
    "tokens_per_unit",
    "missing_stop_rate",
    "f0_mean_hz",
    "voiced_share",
)


def curves(folder: Path) -> dict[str, Any]:
    """Log and evaluations of one finished run, thinned to what a page needs."""
    report = json.loads((folder / "report" / "report.json").read_text())
    logged = {
        name: _means(report["history"][name])
        for name in LOGGED
        if any(value is not None for value in report["history"].get(name, []))
    }
    evaluations = report["evaluations"]
    dev = {
        name: [evaluation["results"]["dev"].get(name) for evaluation in evaluations]
        for name in HEARD
    }
    return {
        "steps_a_value": STEPS_A_VALUE,
        "log": logged,
        "evaluated_at": [evaluation["rl_step"] for evaluation in evaluations],
        "dev": dev,
    }


def _means(values: list[float | None]) -> list[float | None]:
    """Means of `STEPS_A_VALUE` values each, rounded; None where none is known."""
    means: list[float | None] = []
    for first in range(0, len(values), STEPS_A_VALUE):
        known = [value for value in values[first : first + STEPS_A_VALUE] if value is not None]
        means.append(round(statistics.fmean(known), 5) if known else None)
    return means


def ears_along(
    out: Path, seed: int, arm: str, num_steps: int, paths: tts_ears.EarPaths
) -> list[dict[str, Any]]:
    """What the real ears hear at each point of a run, on the same texts and prompts, one sample each."""
    rows = tts_runs.dev(NUM_TEXTS)
    along = []
    for step in points(num_steps):
        model = model_at(out, seed, arm, num_steps, step)
        # All arms of a seed have one start.
        run = out / f"seed{seed}" / "start" if step == 0 else folder_of(out, seed, arm, num_steps)
        folder = run / "ears" / f"dev{NUM_TEXTS}_step{step}"
        records = tts_ears.listened(folder, model, rows, NUM_TEXTS, paths, seed, tts_ears.UNSTEADY)
        along.append({"rl_step": step, **tts_ears.summary(records)})
    return along


def end_less_start(
    out: Path, seed: int, arm: str, num_steps: int, paths: tts_ears.EarPaths
) -> dict[str, list[float]]:
    """What the end of a run has less than its start, on the texts of the table: by ear, with its interval."""
    start = heard(out, seed, "start", paths)
    folder = folder_of(out, seed, arm, num_steps) / "ears" / f"test{NUM_EAR_TEXTS}_step{num_steps}"
    model = model_at(out, seed, arm, num_steps, num_steps)
    rows = tts_runs.TEST["test"]
    # Without DNSMOS: what it says of 25 samples is in the table of the points.
    left_out = (*tts_ears.UNSTEADY, "dnsmos")
    end = tts_ears.listened(folder, model, rows, NUM_EAR_TEXTS, paths, seed, left_out)
    return tts_ears.differences({ear: start[ear] for ear in end}, end)


def is_done(out: Path, seed: int, arm: str, num_steps: int) -> bool:
    """Whether a long run has come to its end."""
    return (folder_of(out, seed, arm, num_steps) / "fit.seconds.json").is_file()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/tts_figures"))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--steps", type=int, default=1500, help="of seed 0")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2], help="beside seed 0")
    parser.add_argument("--seeds-steps", type=int, default=500, help="of the other seeds")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--report", action="store_true", help="run nothing; write what is done")
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs")
    tts_ears.add_arguments(parser)
    args = parser.parse_args()
    if not os.environ.get("FSDD_ROOT"):
        parser.error("set FSDD_ROOT to the folder that holds recordings/")

    out = args.out.absolute()
    runs = [(0, arm, args.steps) for arm in args.arms]
    runs += [(seed, arm, args.seeds_steps) for seed in args.seeds for arm in args.arms]
    if not args.report:
        for name in tts_runs.PARTS:
            tts_runs.part(name, out)
        seeds = [0, *args.seeds]
        side_by_side([lambda s=s: tts_runs.start(out, s) for s in seeds], args.jobs)
        side_by_side([lambda r=r: long_run(out, *r) for r in runs], args.jobs)

    paths = tts_ears.ear_paths(args)
    found = []
    for seed, arm, num_steps in runs:
        if not is_done(out, seed, arm, num_steps):
            print(f"not run: seed {seed}, {arm}, {num_steps} steps")
            continue
        folder = folder_of(out, seed, arm, num_steps)
        seconds = float(json.loads((folder / "fit.seconds.json").read_text()))
        run = {
            "seed": seed,
            "arm": arm,
            "num_steps": num_steps,
            "seconds": seconds,
            "ears": ears_along(out, seed, arm, num_steps, paths),
            "end": {"less": {"start": end_less_start(out, seed, arm, num_steps, paths)}},
        }
        found.append(run | curves(folder))
    if not found:
        parser.error(f"no long run is finished under {out}")

    kept = {"runs": found, "num_texts": NUM_TEXTS, "made_with": made_with()}
    data = args.docs / "tts_long.json"
    data.write_text(json.dumps(kept, separators=(",", ":")) + "\n")
    plot(found, args.docs / "images" / "tts_long.png")
    (args.docs / "tts_long.md").write_text(page(kept, args.docs / "tts_long_reading.md"))
    print(args.docs / "tts_long.md")


if __name__ == "__main__":
    main()
