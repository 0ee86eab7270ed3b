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
from sentences_page import page
from sentences_runs import ROWS, Place


def measured(place: Place, seed: int, name: str) -> dict[str, Any]:
    """One row of one seed: its metrics on the test part, its budget, and what its log says on average."""
    folder = sentences_runs.row(place, seed, name)
    figures = last_figures(folder / "report" / "report.json")["test"]
    return {
        "figures": figures,
        "budget": tts_runs.budget(folder),
        **tts_runs.log_means(folder),
    }


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
    results: dict[int, dict[str, Any]] = {}
    for seed in args.seeds:
        results[seed] = {"start": {"figures": sentences_runs.of_start(place, seed)["test"]}}
        for name in args.rows:
            results[seed][name] = measured(place, seed, name)

    kept = {"results": results, "made_with": made_with()}
    (place.out / "sentences.json").write_text(json.dumps(kept, indent=1))
    (args.docs / "tts_sentences.md").write_text(page(kept))
    print(args.docs / "tts_sentences.md")


if __name__ == "__main__":
    main()
