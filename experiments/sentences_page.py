"""The page of experiments/sentences.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tts_page import Results, budgets, change, ear_differences, foot, moved, of, shares, spread

#: Title -> metric, factor, digits, whether its change is a share of the start.
COLUMNS: dict[str, tuple[str, float, int, bool]] = {
    "PocketSphinx CER % (held out)": ("held_out_cer", 100, 1, True),
    "Whisper base CER % (rewards)": ("cer", 100, 1, True),
    "tokens per word": ("tokens_per_unit", 1, 2, True),
    "missing stops %": ("missing_stop_rate", 100, 2, False),
}
#: Ear -> title of its differences, factor, digits.
DIFFERENCES = {
    "held_out_cer": ("PocketSphinx CER (held out)", 100.0, 1),
    "cer": ("Whisper base CER (rewards)", 100.0, 1),
}
HEAD = """# Speech synthesis on sentences, judged by Whisper

Sentences of four to six common words in three voices of flite 2.2 (slt, rms, kal16), two hours of speech; a codec of
1,000 codes at 50 per second and a language model of 1 million parameters, trained from nothing on it. The judge that
rewards is Whisper base, in a window cut to the clip; PocketSphinx with its own language model, an ear of quite another
kind, is held out. Nobody here trained either. The 200 texts and prompts of the test part, one sample each at
temperature 1. In brackets the change against the start of the same seed; of several seeds mean ± standard deviation,
and mean (lowest to highest) of the changes. Made by `python experiments/sentences.py`."""


def table(results: Results) -> str:
    """One row per method."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in dict.fromkeys(row for each in results.values() for row in each):
        cells = []
        for metric, factor, digits, relative in COLUMNS.values():
            cell = spread([factor * value for value in of(results, row, metric)], digits)
            if row != "start" and relative:
                cell += f"<br>[{_change(results, row, metric)}]"
            cells.append(cell)
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _change(results: Results, row: str, metric: str) -> str:
    """Against the start of the same seed, in percent: of one seed alone, or mean, lowest and highest."""
    if len(results) > 1:
        return change(results, row, metric, True, 1, 0)
    (only,) = moved(results, row, metric, True)
    return f"{100 * only:+.0f} %"


def page(kept: dict[str, Any], reading: Path) -> str:
    """docs/tts_sentences.md; ``reading`` is a human's text that stands behind the head where it exists."""
    results: Results = kept["results"]
    parts = [HEAD]
    if reading.is_file():
        parts.append("## Reading\n\n" + reading.read_text().strip())
    parts += [
        "## Table",
        table(results),
        "What each row has less than start and control, in points of CER with paired 95 % intervals over the texts; "
        "bold where the interval excludes 0.",
        ear_differences(results, DIFFERENCES),
        "## What each run may do",
        budgets(results),
        "## What the logs say",
        "Means over the steps of a run; seconds are those of the last attempt of a run on one thread, evaluation "
        "included.",
        shares(results),
        foot(kept["made_with"]),
    ]
    return "\n\n".join(parts) + "\n"
