"""The runs on the dev part that GRPO's and the combination's weights of KL and of the speaker head were chosen by.

    FSDD_ROOT=<folder with recordings/> python experiments/tts_dev.py --out runs/tts_figures

Goes on in the folder of experiments/tts.py, from its start of the seed; ends with docs/tts_dev.md. One run each: a
guide, not a result.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import tts_runs
from figure_runs import last_figures, made_with, side_by_side
from tts import HEADS, MODEL, ROWS, heads
from tts_page import COLUMNS, foot

NUM_TEXTS = 600
SHORT = {f"{MODEL}.num_steps": 70}
WITHOUT_HEAD = SHORT | {HEADS: heads(0.0)}
#: Name of the folder -> what the table calls it, row of the comparison that it is made from, what is changed in it.
SETTINGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "grpo": ("GRPO R1+R2, 110 steps, beta 0.15", "GRPO R1+R2", {}),
    "grpo_b30": ("GRPO R1+R2, 110 steps, beta 0.3", "GRPO R1+R2", {f"{MODEL}.beta": 0.3}),
    "both": (
        "both + filter, R1+R2, 70 steps, beta 0.15, no KL in DiffRO, no head",
        "both + filter, R1+R2",
        WITHOUT_HEAD | {f"{MODEL}.diffro_beta": 0.0},
    ),
    "both_db15": (
        "both + filter, R1+R2, 70 steps, beta 0.15, diffro_beta 0.15, no head",
        "both + filter, R1+R2",
        WITHOUT_HEAD,
    ),
    "both_b25": (
        "both + filter, R1+R2, 70 steps, beta 0.25, diffro_beta 0.15, no head",
        "both + filter, R1+R2",
        WITHOUT_HEAD | {f"{MODEL}.beta": 0.25},
    ),
    "both_head": (
        "both + filter, R1+R2, 70 steps, beta 0.15, diffro_beta 0.15, head 0.3",
        "both + filter, R1+R2",
        SHORT,
    ),
}


def tried(out: Path, seed: int, name: str) -> dict[str, float]:
    """Figures on dev at the end of one run."""
    _, row, changes = SETTINGS[name]
    config, of_row = ROWS[row]
    changes = of_row | changes | {"data.init_args.val": {"dev": tts_runs.dev(NUM_TEXTS)}}
    folder = tts_runs.run(out, seed, f"dev_{name}", config, changes)
    return last_figures(folder / "report" / "report.json")["dev"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/tts_figures"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs")
    args = parser.parse_args()

    out = args.out.absolute()
    tts_runs.start(out, args.seed)
    model = tts_runs.start_model(out, args.seed)
    rows = {"dev": tts_runs.dev(NUM_TEXTS)}
    start = tts_runs.evaluated(out, args.seed, "start/dev", model, rows)["dev"]
    found = side_by_side([lambda n=n: tried(out, args.seed, n) for n in SETTINGS], args.jobs)

    titles = [title for title in COLUMNS if title not in ("F0 Hz", "voiced frames %")]
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    named = {"start": start} | {
        SETTINGS[name][0]: figures for name, figures in zip(SETTINGS, found, strict=True)
    }
    for name, figures in named.items():
        cells = [
            f"{factor * figures[key]:.{digits}f}"
            for key, factor, digits in (COLUMNS[title] for title in titles)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")

    head = f"# Settings tried on dev\n\nSeed {args.seed}, {NUM_TEXTS} texts of the dev part, one run each; "
    head += "see [the figures](tts_figures.md). Made by `python experiments/tts_dev.py`."
    (args.docs / "tts_dev.md").write_text(
        "\n\n".join([head, "\n".join(lines), foot(made_with())]) + "\n"
    )
    print(args.docs / "tts_dev.md")


if __name__ == "__main__":
    main()
