"""The one table of figures: on the screen, in the report."""

from __future__ import annotations

import math

from lightning_audiorl.callbacks.view import Results
from lightning_audiorl.metrics.specs import EVALUATION_METRICS, Format, MetricSpec, Task, evaluation_spec

_NOTE = "Percent of words or utterances; length is words said per word spoken."
_SPEECH_NOTE = (
    "CER, gap: percent of characters, by the judge that rewards, by the one held out, and the difference. sim: cosine "
    "to the speaker prompt, by both encoders. tokens/unit: speech tokens per word. no stop: percent of samples that "
    "the length cap cut. duration: seconds spoken per second expected. change: difference, or percent of the start."
)


def is_speech(results: Results) -> bool:
    """Whether these are figures of synthesised speech."""
    return any("missing_stop_rate" in figures for figures in results.values())


def shown_metrics(results: Results) -> list[MetricSpec]:
    """The metrics that tables and bars show of such results: those of the task, and others that some set has."""
    task: Task = "synthesis" if is_speech(results) else "recognition"
    of_task = [spec for spec in EVALUATION_METRICS if spec.task == task]
    present = dict.fromkeys(name for metrics in results.values() for name in metrics)
    others = [spec for spec in map(evaluation_spec, present) if spec.task is None]
    return of_task + others


def columns_of(results: Results) -> dict[str, tuple[str, Format]]:
    """Heading and format of each column of the table, by metric."""
    return {spec.name: (spec.title, spec.format) for spec in shown_metrics(results) if spec.format is not None}


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
    lines = [["set", *([] if after is None else [""]), *(title for title, _ in columns.values())]]
    for name in names:
        now = [results.get(name, {}) for results in (before, after) if results is not None]
        cells = [[form.text(one.get(key, math.nan)) for key, (_, form) in columns.items()] for one in now]
        if after is not None and is_speech(before):
            values = [[one.get(key, math.nan) for one in now] for key in columns]
            cells.append([form.change_text(*pair) for (_, form), pair in zip(columns.values(), values, strict=True)])
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
