"""The paper's Table 2 in miniature: SFT, GRPO, DiffRO and both, from one start per seed, on recorded digits.

    FSDD_ROOT=<folder with recordings/> python experiments/tts.py --out runs/tts_figures --seeds 0 1 2

Takes the shipped codec, ASR judges and Token2Text, trains speaker encoders once, a language model for each seed, then
every row of the table from it; ends with docs/tts_figures.md and docs/images/tts_*.png. What is done is not done again.
Ears that were not trained here listen where they are named: ``--whisper <folder> --resemblyzer <file>``.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import tts_ears
import tts_runs
from figure_runs import Spec, last_figures, made_with, side_by_side, spec
from tts_page import DIFFRO, HALVES, page
from tts_plots import plot
from tts_token2text import validated

MODEL = "model.init_args"
REWARDS = f"{MODEL}.rewards.init_args.rewards"
HEADS = f"{MODEL}.differentiable.init_args.rewards"


def mix(*more: Spec) -> list[Spec]:
    """R1 with the hard bounds that every row has, and more."""
    judge = spec("judges.CtcJudge", folder="runs/tts/fsdd/asr_judge/export", name="asr")
    bounds = spec("rewards.SpeechBounds", weight=0.5, tokens_per_second=[20.0, 34.0])
    return [spec("rewards.SpeechAccuracy", judge=judge), bounds, *more]


R2 = spec("rewards.DurationConsistency", weight=0.5)
R3 = spec("rewards.Diversity", weight=0.1)
SIM = spec(
    "rewards.SpeakerSimilarity",
    weight=0.5,
    encoder=spec(
        "judges.EcapaEncoder", source="runs/tts/fsdd/speaker_encoder/export", name="speaker"
    ),
)


def heads(speaker: float) -> list[Spec]:
    """Text, and the speaker head with its weight."""
    return [
        spec("rewards.TextLikelihood", form="decoder"),
        spec("rewards.HeadLikelihood", head="speaker", weight=speaker),
    ]


#: Row of the table -> configuration and what is changed in it.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "SFT control": ("control", {}),
    "GRPO R1": ("grpo", {REWARDS: mix()}),
    "GRPO R1+R2": ("grpo", {REWARDS: mix(R2)}),
    "GRPO R1+R2+R3": ("grpo", {REWARDS: mix(R2, R3)}),
    "GRPO R1+R2+SIM": ("grpo", {REWARDS: mix(R2, SIM)}),
    "DiffRO": ("diffro", {HEADS: heads(0.0)}),
    "DiffRO + speaker head": ("diffro", {HEADS: heads(0.3)}),
    "both, no filter, R1": ("grpo_diffro", {REWARDS: mix(), f"{MODEL}.diffro_filters": []}),
    "both + filter, R1": ("grpo_diffro", {REWARDS: mix()}),
    "both + filter, R1+R2": ("grpo_diffro", {REWARDS: mix(R2)}),
    "both + filter, R1+R2+R3": ("grpo_diffro", {REWARDS: mix(R2, R3)}),
    "both + filter, R1+R2, no head": ("grpo_diffro", {REWARDS: mix(R2), HEADS: heads(0.0)}),
}
#: What the real ears compare every row with.
COMPARED = ("start", "SFT control")
#: Texts of the evaluation set that the real ears hear.
NUM_EAR_TEXTS = 200


def folder_name(row: str) -> str:
    """A row as a folder: lower case, without spaces and signs."""
    return "_".join(
        "".join(c if c.isalnum() else " " for c in row.lower().replace("+", " ")).split()
    )


def short(out: Path, seed: int, row: str) -> dict[str, Any]:
    """One row of one seed: figures on the evaluation set, seconds of training, and what the log says on average."""
    config, changes = ROWS[row]
    folder = tts_runs.run(
        out, seed, folder_name(row), config, changes | {"data.init_args.val": tts_runs.TEST}
    )
    figures = dict(last_figures(folder / "report" / "report.json")["test"])
    return {"figures": figures, "budget": tts_runs.budget(folder), **tts_runs.log_means(folder)}


def heard(out: Path, seed: int, row: str, paths: tts_ears.EarPaths) -> tts_ears.Records:
    """What the real ears hear of a start or a finished row, on the first texts of the evaluation set."""
    name = "start" if row == "start" else folder_name(row)
    model = (
        tts_runs.start_model(out, seed) if row == "start" else out / f"seed{seed}" / name / "export"
    )
    folder = out / f"seed{seed}" / name / "ears" / f"test{NUM_EAR_TEXTS}"
    rows = tts_runs.TEST["test"]
    return tts_ears.listened(folder, model, rows, NUM_EAR_TEXTS, paths, seed)


def once_more(out: Path, seed: int, row: str) -> dict[str, Any]:
    """The figures of a start or a finished row on the second draw of the evaluation set."""
    if row == "start":
        name, model, log = "start", tts_runs.start_model(out, seed), {}
    else:
        name = folder_name(row)
        model, log = (
            out / f"seed{seed}" / name / "export",
            tts_runs.log_means(out / f"seed{seed}" / name),
        )
    figures = tts_runs.evaluated(out, seed, f"{name}/more_test", model, tts_runs.MORE_TEST)["test"]
    return {"figures": figures, **log}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/tts_figures"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), help="rows to run; default all")
    parser.add_argument(
        "--more", action="store_true", help="compare combinations and halves on a second draw, too"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs")
    tts_ears.add_arguments(parser)
    args = parser.parse_args()
    if not os.environ.get("FSDD_ROOT"):
        parser.error("set FSDD_ROOT to the folder that holds recordings/")

    out = args.out.absolute()
    rows = args.only or list(ROWS)
    tts_runs.part("codec", out)
    side_by_side(
        [lambda n=n: tts_runs.part(n, out) for n in tts_runs.PARTS if n != "codec"], args.jobs
    )

    fell_by = side_by_side([lambda s=s: tts_runs.start(out, s) for s in args.seeds], args.jobs)
    base = side_by_side(
        [
            lambda s=s: tts_runs.evaluated(out, s, "start/test", tts_runs.start_model(out, s))
            for s in args.seeds
        ],
        args.jobs,
    )

    todo = [(seed, row) for row in rows for seed in args.seeds]
    done = side_by_side([lambda s=s, r=r: short(out, s, r) for s, r in todo], args.jobs)
    results: dict[int, dict[str, Any]] = {
        seed: {"start": {"figures": figures["test"]}}
        for seed, figures in zip(args.seeds, base, strict=True)
    }
    for (seed, row), result in zip(todo, done, strict=True):
        results[seed][row] = result

    # None of them has had a part in anything above.
    paths = tts_ears.ear_paths(args)
    for seed, of_seed in results.items():
        records = {row: heard(out, seed, row, paths) for row in of_seed}
        for row, run in of_seed.items():
            run["figures"] |= tts_ears.summary(records[row])
            others = [other for other in COMPARED if other in records and other != row]
            run["less"] = {
                other: tts_ears.differences(records[other], records[row]) for other in others
            }

    halves = {"start", *HALVES, *HALVES.values(), *DIFFRO}
    todo = [
        (seed, row)
        for row in ["start", *rows]
        if args.more and row in halves
        for seed in args.seeds
    ]
    done = side_by_side([lambda s=s, r=r: once_more(out, s, r) for s, r in todo], args.jobs)
    more: dict[int, dict[str, Any]] = {seed: {} for seed in args.seeds}
    for (seed, row), result in zip(todo, done, strict=True):
        more[seed][row] = result

    plateau = {s: fell for s, fell in zip(args.seeds, fell_by, strict=True) if fell is not None}
    kept = {
        "results": results,
        "more": more,
        "plateau": plateau,
        "token2text": validated(out, args.seeds[0]),
        "made_with": made_with(),
    }
    (out / "tts.json").write_text(json.dumps(kept, indent=1))

    images = args.docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    plot(results, images / "tts_rows.png")
    (args.docs / "tts_figures.md").write_text(page(kept, args.docs / "tts_reading.md"))
    print(args.docs / "tts_figures.md")


if __name__ == "__main__":
    main()
