"""Speech synthesis on sentences of a few words: SFT control, GRPO, DiffRO and both, rewarded by Whisper.

    python experiments/sentences.py --whisper <folder> --flite flite --out runs/sentences

Speaks the recordings, trains codec and Token2Text once and a language model for each seed, then every row from it;
ends with docs/tts_sentences.md. What is done is not done again, and a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import sentences_runs
import tts_runs
from figure_runs import last_figures, made_with
from sentences_page import DIFFERENCES, page
from sentences_runs import ROWS, Parts, Place

from lightning_audiorl.reports.bootstrap import paired_intervals


def measured(place: Place, seed: int, name: str) -> dict[str, Any]:
    """One row of one seed: its metrics on the test part, its budget, and what its log says on average."""
    folder = sentences_runs.row(place, seed, name)
    figures = last_figures(folder / "report" / "report.json")["test"]
    return {
        "figures": figures,
        "budget": tts_runs.budget(folder),
        **tts_runs.log_means(folder),
    }


def less(parts: Parts, other: Parts) -> dict[str, list[float]]:
    """What a row has less than another by each judge, with its paired 95 % interval over the texts."""
    first = {name: other[name] for name in DIFFERENCES}
    second = {name: parts[name] for name in DIFFERENCES}
    found = {}
    for name, paired in paired_intervals(first, second, "sentences").items():
        difference = paired.difference
        found[name] = [difference.value, difference.low, difference.high]
    return found


def of_seed(place: Place, seed: int, names: list[str]) -> dict[str, dict[str, Any]]:
    """The start of a seed and its rows, each less start and control."""
    rows: dict[str, dict[str, Any]] = {
        "start": {"figures": sentences_runs.of_start(place, seed)["test"]}
    }
    parts = {"start": sentences_runs.start_parts(place, seed)}
    for name in names:
        rows[name] = measured(place, seed, name)
        parts[name] = sentences_runs.row_parts(place, seed, name)

    for name in names:
        others = [other for other in ("start", "SFT control") if other in parts and other != name]
        rows[name]["less"] = {other: less(parts[name], parts[other]) for other in others}
    return rows


def main() -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/sentences"))
    parser.add_argument("--whisper", type=Path, required=True, help="folder of Whisper base")
    parser.add_argument("--flite", default="flite", help="the program that speaks the recordings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument(
        "--until", choices=["codec", "start", "rows"], default="rows", help="what to end with"
    )
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs")
    args = parser.parse_args()

    place = Place(args.out.absolute(), args.whisper, args.flite)
    sentences_runs.data(place)
    sentences_runs.part(place, "codec")
    if args.until == "codec":
        return

    for seed in args.seeds:
        sentences_runs.start(place, seed)
    if args.until == "start":
        return

    sentences_runs.part(place, "token2text")
    results = {seed: of_seed(place, seed, args.rows) for seed in args.seeds}
    kept = {"results": results, "made_with": made_with()}
    (place.out / "sentences.json").write_text(json.dumps(kept, indent=1))
    (args.docs / "tts_sentences.md").write_text(page(kept, args.docs / "tts_sentences_reading.md"))
    print(args.docs / "tts_sentences.md")


if __name__ == "__main__":
    main()
