"""What the paper's filtered samples are worth: GRPO on rows chosen by filters, on all rows, on as many random rows.

    FSDD_ROOT=<folder with recordings/> python experiments/tts_filters.py --whisper <folder> --resemblyzer <file>

Wants the parts and the starts of `experiments/tts.py`. Each seed's own start says its four samples of 1,000 texts, and
the rules of configs/tts/fsdd/rl_subsets.yaml choose among them. Every arm takes the same steps from the same start.
What is done is not done again. Ends with docs/tts_filters.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from copy import deepcopy
from pathlib import Path
from typing import Any

import tts_ears
import tts_runs
from figure_runs import Spec, audiorl, last_figures, made_with, side_by_side
from tts import MODEL, R2, REWARDS, mix
from tts_page import foot

NUM_STEPS = 60
#: Texts of the test part that the real ears hear.
NUM_TEXTS = 200
#: Arm -> what it stands for.
ARMS = {
    "filtered": "rows that every rule keeps",
    "all rows": "the same texts and prompts, none left out",
    "random": "as many random rows as the rules keep",
}
#: Title, name, factor, digits.
COLUMNS = (
    ("held-out CER %", "held_out_cer", 100, 1),
    ("reward judge's CER %", "cer", 100, 1),
    ("held-out similarity", "held_out_similarity", 1, 3),
    ("Whisper, ten words, CER %", "whisper_words_cer", 100, 1),
    ("PocketSphinx CER %", "pocketsphinx_cer", 100, 1),
    ("Resemblyzer similarity", "resemblyzer_similarity", 1, 3),
)
HEAD = f"""# Speech synthesis: are filtered rows better rows?

The paper trains GRPO on samples that passed filters. Here the start of each seed says {{num_rows}} texts four times;
the rules keep a row whose prompt can be heard, that the start says at a fair pace, in the voice of the prompt, stopping
by itself, and right in some samples but not in all
([rl_subsets.yaml](../configs/tts/fsdd/rl_subsets.yaml)). GRPO R1+R2, {NUM_STEPS} steps of 8 texts x 8 samples from the
same start: on the rows kept, on all rows, on as many random rows. Our judges hear 800 texts of the test part, the real
ears {NUM_TEXTS} of them, one sample each at temperature 1. Mean ± standard deviation over the seeds, then each seed.
Made by `python experiments/tts_filters.py`."""


def subsets() -> Spec:
    """The mix of rl_subsets.yaml."""
    loaded: Spec = tts_runs.shipped("rl_subsets")
    return loaded


def predicted(out: Path, seed: int) -> Path:
    """What the start of a seed says of the rows to choose from."""
    folder = out / f"seed{seed}" / "filters" / "predict"
    settings = tts_runs.placed(tts_runs.shipped("predict"), tts_runs.parts_and_start(out, seed))
    settings["out"] = str(folder / "hypotheses.jsonl")
    settings["seed"] = seed
    audiorl("predict", settings, folder)
    return folder / "hypotheses.jsonl"


def trained(out: Path, seed: int, arm: str, num_kept: int | None) -> Path:
    """One run of GRPO on the rows of one arm."""
    data = deepcopy(subsets()["data"])
    subset = data["init_args"]["subsets"]["fit_for_rl"]
    if arm == "filtered":
        subset["hypotheses"] = [str(predicted(out, seed))]
    else:
        del subset["hypotheses"]
        data["init_args"]["subsets"] = {arm.replace(" ", "_"): subset}
        subset["builder"] = {"class_path": "Everything"}
        if arm == "random":
            subset["builder"] = {"class_path": "RandomControl", "init_args": {"num_rows": num_kept}}

    folder = out / f"seed{seed}" / "filters" / arm.replace(" ", "_")
    data["init_args"]["cache_dir"] = str(folder / "rl_data")
    data["init_args"]["val"] = tts_runs.TEST
    changes = {f"{MODEL}.num_steps": NUM_STEPS, REWARDS: mix(R2)}
    settings = tts_runs.changed(tts_runs.shipped("grpo") | {"data": data}, changes)
    settings = tts_runs.placed(settings, tts_runs.parts_and_start(out, seed))
    audiorl("fit", tts_runs.in_folder(settings, folder, seed), folder)
    return folder


def num_rows(folder: Path) -> int:
    """Rows of the mix that a run trained on."""
    files = list((folder / "rl_data").glob("*/summary.json"))
    built = json.loads(files[0].read_text())
    return sum(int(subset["kept"]) for subset in built["subsets"].values())


def arms_of(out: Path, seed: int) -> dict[str, Path]:
    """The runs of one seed: the filtered rows first, whose number the random ones take."""
    filtered = trained(out, seed, "filtered", None)
    kept = num_rows(filtered)
    others = {arm: trained(out, seed, arm, kept) for arm in ARMS if arm != "filtered"}
    return {"filtered": filtered, **others}


def measured(folder: Path, paths: tts_ears.EarPaths, seed: int) -> dict[str, float]:
    """One run by our judges and by the real ears."""
    figures = last_figures(folder / "report" / "report.json")["test"]
    ears = folder / "ears" / f"test{NUM_TEXTS}"
    model = folder / "export"
    rows = tts_runs.TEST["test"]
    # What DNSMOS says of 25 samples would tell no arm from another.
    left_out = (*tts_ears.UNSTEADY, "dnsmos")
    records = tts_ears.listened(ears, model, rows, NUM_TEXTS, paths, seed, left_out)
    return figures | tts_ears.summary(records) | {"num_rows": float(num_rows(folder))}


def table(results: dict[int, dict[str, dict[str, float]]]) -> str:
    """One row per arm, the seeds apart in brackets."""
    first = next(iter(results.values()))["filtered"]
    columns = [column for column in COLUMNS if column[1] in first]
    titles = ["", "rows, each seed", *(title for title, *_ in columns)]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]

    for arm, meaning in ARMS.items():
        of_seeds = [seed_results[arm] for seed_results in results.values()]
        cells = [", ".join(f"{run['num_rows']:.0f}" for run in of_seeds)]
        for _, name, factor, digits in columns:
            cells.append(_cell([factor * run[name] for run in of_seeds], digits))
        lines.append(f"| {arm}: {meaning} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: list[float], digits: int) -> str:
    """Mean and standard deviation, then the value of each seed."""
    seeds = ", ".join(f"{value:.{digits}f}" for value in values)
    if len(values) < 2:
        return seeds
    mean = statistics.fmean(values)
    return f"{mean:.{digits}f} ± {statistics.stdev(values):.{digits}f} ({seeds})"


def page(kept: dict[str, Any], reading: Path) -> str:
    """docs/tts_filters.md; ``reading`` is a human's text that stands behind the head where it exists."""
    rows = subsets()["data"]["init_args"]["subsets"]["fit_for_rl"]["source"]["init_args"]
    parts = [HEAD.format(num_rows=f"{rows['num_rows']:,}")]
    if reading.is_file():
        parts.append("## Reading\n\n" + reading.read_text().strip())
    parts += [table(kept["results"]), foot(kept["made_with"])]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/tts_figures"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs")
    tts_ears.add_arguments(parser)
    args = parser.parse_args()
    if not os.environ.get("FSDD_ROOT"):
        parser.error("set FSDD_ROOT to the folder that holds recordings/")

    out = args.out.absolute()
    paths = tts_ears.ear_paths(args)
    runs = side_by_side([lambda s=s: arms_of(out, s) for s in args.seeds], args.jobs)
    results = {
        seed: {arm: measured(folder, paths, seed) for arm, folder in of_seed.items()}
        for seed, of_seed in zip(args.seeds, runs, strict=True)
    }

    kept = {"results": results, "made_with": made_with()}
    (out / "tts_filters.json").write_text(json.dumps(kept, indent=1))
    (args.docs / "tts_filters.md").write_text(page(kept, args.docs / "tts_filters_reading.md"))
    print(args.docs / "tts_filters.md")


if __name__ == "__main__":
    main()
