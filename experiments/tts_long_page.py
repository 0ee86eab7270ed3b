"""The page of experiments/tts_long.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tts_long_plot import early_stop
from tts_page import Results, ear_differences, foot

HEAD = """# Speech synthesis: long runs

The paper's Figure 3 in miniature: GRPO, DiffRO, and both with the sample filter and without, at a constant learning
rate and half the texts a step of [the table](tts_figures.md), on recorded digits. The judges that were trained here
hear 100 texts of dev every 100 steps, one sample each. The real ears (Whisper base kept to ten words, PocketSphinx,
Resemblyzer, DNSMOS: [what they are worth](judges.md)) hear {num_texts} of them at five points, DNSMOS 25; none of them
rewards, and none chose a setting. A cross marks the best evaluation by the reward judge where three evaluations after
it were no better: where early stopping would have gone back to. It was not applied. The data of the curves:
[tts_long.json](tts_long.json). Made by `python experiments/tts_long.py`."""

#: Title, name, factor, digits of what the real ears hear.
EARS = (
    ("Whisper, ten words, CER %", "whisper_words_cer", 100, 1),
    ("PocketSphinx CER %", "pocketsphinx_cer", 100, 1),
    ("Resemblyzer similarity", "resemblyzer_similarity", 1, 3),
    ("DNSMOS", "dnsmos_quality", 1, 2),
    ("tokens per digit", "tokens_per_unit", 1, 1),
    ("missing stops %", "missing_stop_rate", 100, 0),
    ("voiced frames %", "voiced_share", 100, 1),
    ("samples with F0 %", "with_f0_share", 100, 0),
)
#: The same of the judges that were trained here.
OURS = (
    ("held-out CER %", "held_out_cer", 100, 1),
    ("reward judge's CER %", "cer", 100, 1),
    ("held-out similarity", "held_out_similarity", 1, 3),
    ("tokens per digit", "tokens_per_unit", 1, 1),
    ("missing stops %", "missing_stop_rate", 100, 1),
)


def page(kept: dict[str, Any], reading: Path) -> str:
    """docs/tts_long.md; ``reading`` is a human's text that stands behind the head where it exists."""
    runs = kept["runs"]
    parts = [HEAD.format(num_texts=kept["num_texts"])]
    if reading.is_file():
        parts.append("## Reading\n\n" + reading.read_text().strip())

    parts += [
        "![long runs](images/tts_long.png)",
        "## By the real ears, point by point",
        _ears_table(runs),
        "The end less the start on the 200 texts of [the table](tts_figures.md), in points of CER and in cosine, with "
        "paired 95 % intervals over the texts; bold where the interval excludes 0.",
        _ends(runs),
        "## By the judges that were trained here",
        "Start, best evaluation by that judge (its step), end.",
        _ours_table(runs),
        foot(kept["made_with"]),
    ]
    return "\n\n".join(parts) + "\n"


def _ends(runs: list[dict[str, Any]]) -> str:
    """The end of each run less its start."""
    results: Results = {run["seed"]: {} for run in runs}
    for run in runs:
        results[run["seed"]][run["arm"]] = run["end"]
    return ear_differences(results)


def _ears_table(runs: list[dict[str, Any]]) -> str:
    """One row per run; each cell holds the values of its points, in order."""
    columns = [column for column in EARS if any(column[1] in run["ears"][0] for run in runs)]
    lines = [
        "| | seed | RL steps | " + " | ".join(title for title, *_ in columns) + " |",
        "|---|---|---|" + "---|" * len(columns),
    ]
    for run in runs:
        steps = ", ".join(str(point["rl_step"]) for point in run["ears"])
        cells = []
        for _, name, factor, digits in columns:
            values = [point.get(name) for point in run["ears"]]
            cells.append(", ".join(_number(value, factor, digits) for value in values))
        lines.append(f"| {run['arm']} | {run['seed']} | {steps} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ours_table(runs: list[dict[str, Any]]) -> str:
    """One row per run: start, best and end of what our judges hear, and where early stopping would have ended it."""
    titles = [title for title, *_ in OURS]
    lines = [
        "| | seed | steps | minutes | early stop | " + " | ".join(titles) + " |",
        "|---|---|---|---|---|" + "---|" * len(titles),
    ]
    for run in runs:
        cells = [
            _start_best_end(run, name, factor, digits, best="cer" in name)
            for _, name, factor, digits in OURS
        ]
        stop = early_stop(run)
        where = "-" if stop is None else str(stop)
        minutes = f"{run['seconds'] / 60:.0f}"
        first = f"| {run['arm']} | {run['seed']} | {run['num_steps']} | {minutes} | {where} | "
        lines.append(first + " | ".join(cells) + " |")
    return "\n".join(lines)


def _start_best_end(run: dict[str, Any], name: str, factor: float, digits: int, best: bool) -> str:
    values = run["dev"][name]
    start, end = (_number(value, factor, digits) for value in (values[0], values[-1]))
    if not best:
        return f"{start}, {end}"
    lowest = min(range(len(values)), key=lambda i: values[i])
    at = run["evaluated_at"][lowest]
    return f"{start}, {_number(values[lowest], factor, digits)} ({at}), {end}"


def _number(value: float | None, factor: float, digits: int) -> str:
    """A value as a table shows it; a dash for none."""
    if value is None or value != value:
        return "-"
    return f"{factor * value:.{digits}f}"
