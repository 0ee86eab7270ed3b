"""The one table of figures: on the screen, in the report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lightning_audiorl.callbacks.common import Results


@dataclass(frozen=True)
class Column:
    """A figure as the table shows it.

    Args:
        title: heading.
        digits: after the point.
        factor: 100 for a share, which is shown in percent.
        change: how a later value is compared with the first one: by its difference, in the column's own unit, or as a
            percentage of the first.
    """

    title: str
    digits: int = 1
    factor: float = 100.0
    change: Literal["difference", "percent"] = "difference"

    def text(self, value: float) -> str:
        """A dash for NaN."""
        return "-" if math.isnan(value) else f"{self.factor * value:.{self.digits}f}"

    def change_text(self, before: float, after: float) -> str:
        """With its sign; a dash where one is NaN, or nothing can be divided by."""
        if self.change == "difference":
            change = self.factor * (after - before)
            return "-" if math.isnan(change) else f"{change:+.{self.digits}f}"
        change = 100 * (after / before - 1) if before else math.nan
        return "-" if math.isnan(change) else f"{change:+.1f} %"


#: Columns of speech recognition; all are shares of words or utterances except the length ratio.
FIGURES = {
    "wer": Column("WER"),
    "insertion_rate": Column("ins"),
    "deletion_rate": Column("del"),
    "correct_rate": Column("correct"),
    "loop_rate": Column("loops"),
    "hallucination_rate": Column("halluc"),
    "nonspeech_text_rate": Column("noise text"),
    "keyword_f1": Column("keyword F1"),
    "length_ratio": Column("length", digits=2, factor=1),
}

#: Columns of speech synthesis; see `metrics.speech.speech_figures`.
SPEECH_FIGURES = {
    "cer": Column("CER"),
    "held_out_cer": Column("held-out CER"),
    "judge_gap": Column("gap"),
    "similarity": Column("sim", digits=3, factor=1),
    "held_out_similarity": Column("held-out sim", digits=3, factor=1),
    "tokens_per_unit": Column("tokens/unit", factor=1, change="percent"),
    "missing_stop_rate": Column("no stop"),
    "f0_mean_hz": Column("F0 Hz", digits=0, factor=1, change="percent"),
    "duration_ratio": Column("duration", digits=2, factor=1, change="percent"),
}

_NOTE = "Percent of words or utterances; length is words said per word spoken."
_SPEECH_NOTE = (
    "CER, gap: percent of characters, by the judge that rewards, by the one held out, and the difference. sim: cosine "
    "to the speaker prompt, by both encoders. tokens/unit: speech tokens per word. no stop: percent of samples that "
    "the length cap cut. duration: seconds spoken per second expected. change: difference, or percent of the start."
)


def is_speech(results: Results) -> bool:
    """Whether these are figures of synthesised speech."""
    return any("missing_stop_rate" in figures for figures in results.values())


def columns_of(results: Results) -> dict[str, Column]:
    """The columns that the table of such figures has."""
    return SPEECH_FIGURES if is_speech(results) else FIGURES


def figure_note(results: Results) -> str:
    """What the columns are, in a sentence or two."""
    return _SPEECH_NOTE if is_speech(results) else _NOTE


def figure_table(before: Results, after: Results | None = None, labels: tuple[str, str] = ("before", "after")) -> str:
    """One aligned text table: a line for each set (and each decoding of it); `figure_note` says what it shows.

    Figures of speech synthesis have columns of their own, and a third line for a set: what has changed since the start.

    Args:
        before: figures by "<set>" or "<set>/<decoding>".
        after: the same later on; each set then has two lines.
        labels: what the two lines are called.
    """
    names = [*before, *(name for name in after or {} if name not in before)]
    columns = columns_of(before)
    lines = [["set", *([] if after is None else [""]), *(column.title for column in columns.values())]]
    for name in names:
        now = [results.get(name, {}) for results in (before, after) if results is not None]
        cells = [[column.text(one.get(key, math.nan)) for key, column in columns.items()] for one in now]
        if after is not None and columns is SPEECH_FIGURES:
            values = [[one.get(key, math.nan) for one in now] for key in columns]
            cells.append([c.change_text(*pair) for c, pair in zip(columns.values(), values, strict=True)])
        for number, (label, line) in enumerate(zip((*labels, "change"), cells, strict=False)):
            lines.append([name if number == 0 else "", *([] if after is None else [label]), *line])
    return _aligned(lines, 1 if after is None else 2)


def _aligned(lines: list[list[str]], num_left: int) -> str:
    """Columns of one width each, the first ``num_left`` flush left; a rule under the first line."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = [
        "  ".join(
            cell.ljust(width) if column < num_left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([rows[0], "-" * max(map(len, rows)), *rows[1:]])
