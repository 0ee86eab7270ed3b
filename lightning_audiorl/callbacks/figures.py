"""The one table of figures: on the screen, in the report."""

from __future__ import annotations

import math

from lightning_audiorl.callbacks.common import Results

#: Column heading by figure; all are shares of words or utterances except the length ratio.
FIGURES = {
    "wer": "WER",
    "insertion_rate": "ins",
    "deletion_rate": "del",
    "correct_rate": "correct",
    "loop_rate": "loops",
    "hallucination_rate": "halluc",
    "nonspeech_text_rate": "noise text",
    "keyword_f1": "keyword F1",
    "length_ratio": "length",
}


def format_figure(name: str, value: float) -> str:
    """Percent with one decimal, a length ratio with two; a dash for NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if name == "length_ratio" else f"{100 * value:.1f}"


def figure_table(before: Results, after: Results | None = None, labels: tuple[str, str] = ("before", "after")) -> str:
    """One aligned text table: a line for each set (and each decoding of it), in percent; ``length`` is a ratio.

    Args:
        before: figures by "<set>" or "<set>/<decoding>".
        after: the same later on; each set then has two lines.
        labels: what the two lines are called.
    """
    names = [*before, *(name for name in after or {} if name not in before)]
    lines = [["set", *([] if after is None else [""]), *FIGURES.values()]]
    for name in names:
        for number, (label, results) in enumerate(zip(labels, (before, after), strict=True)):
            if results is None:
                continue
            cells = [format_figure(key, results.get(name, {}).get(key, math.nan)) for key in FIGURES]
            lines.append([name if number == 0 else "", *([] if after is None else [label]), *cells])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    num_left = 1 if after is None else 2
    rows = [
        "  ".join(
            cell.ljust(width) if column < num_left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([rows[0], "-" * max(map(len, rows)), *rows[1:]])
