"""The one table of metrics: on the screen, in the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_audiorl.callbacks.view import Results
from lightning_audiorl.metrics.specs import (
    EVALUATION_METRICS,
    Format,
    MetricSpec,
    Task,
    evaluation_spec,
)

_NOTE = "Percent of words or utterances; length is words said per word spoken."
_SPEECH_NOTE = (
    "CER, gap: percent of characters, by the judge that rewards, by the one held out, and the difference. sim: cosine "
    "to the speaker prompt, by both encoders. tokens/unit: speech tokens per word. no stop: percent of samples that "
    "the length cap cut. F0 Hz: mean pitch of voiced frames, a dash where fewer than 5 % are voiced. voiced: percent "
    "of frames that are. duration: seconds spoken per second expected. change: difference, or percent of the start."
)
# Beside the other of speech, where there are such metrics.
_AGREEMENT_NOTE = (
    " judge tau: Kendall's tau-b between the errors that the judge that rewards and the one held out find in the "
    "samples of a text, mean over judge tau groups texts; by an ear: the same of that ear."
)


@dataclass(frozen=True)
class Column:
    """A metric as the table shows it: its name, its heading, and how its values are written."""

    name: str
    title: str
    format: Format


def is_speech(results: Results) -> bool:
    """Whether these are metrics of synthesised speech.

    Example:
        >>> is_speech({"dev": {"cer": 0.1, "missing_stop_rate": 0.0}}), is_speech({"dev": {"cer": 0.1}})
        (True, False)
    """
    # Every evaluation of speech has it, whatever judges it asks; no other has.
    return any("missing_stop_rate" in metrics for metrics in results.values())


def shown_metrics(results: Results) -> list[MetricSpec]:
    """The metrics that tables and bars show of such results: those of the task, and others that some set has."""
    task: Task = "synthesis" if is_speech(results) else "recognition"
    of_task = [spec for spec in EVALUATION_METRICS if spec.task == task]

    present: dict[str, MetricSpec] = {}
    for metrics in results.values():
        present |= {name: evaluation_spec(name) for name in metrics}
    others = [spec for spec in present.values() if spec.task is None]

    return of_task + others


def columns_of(results: Results) -> list[Column]:
    """The columns of the table of such results.

    Example:
        >>> [column.title for column in columns_of({"dev": {"wer": 0.1, "mean_pause_s": 0.4}})][-2:]
        ['length', 'mean pause s']
    """
    columns = []
    for spec in shown_metrics(results):
        if spec.format is not None:
            columns.append(Column(spec.name, spec.title, spec.format))
    return columns


def metric_note(results: Results) -> str:
    """What the columns are, in a sentence or two."""
    if not is_speech(results):
        return _NOTE
    return f"{_SPEECH_NOTE}{agreement_note(results)}"


def agreement_note(results: Results) -> str:
    """What the columns of rank agreement are; empty where there are none."""
    for metrics in results.values():
        if any(name.startswith("judge_tau") for name in metrics):
            return _AGREEMENT_NOTE
    return ""


def metric_table(
    before: Results,
    after: Results | None = None,
    labels: tuple[str, str] = ("before", "after"),
) -> str:
    """One aligned text table: a line for each set (and each decoding of it); `metric_note` says what it shows.

    Metrics of speech synthesis have columns of their own, and a third line for a set: what has changed since the start.

    Args:
        before: metrics by "<set>" or "<set>/<decoding>".
        after: the same later on; each set then has two lines.
        labels: what the two lines are called.

    Example:
        >>> table = metric_table({"long": {"wer": 0.3}}, {"long": {"wer": 0.1}})
        >>> [line.split()[:3] for line in table.splitlines() if "-" not in line[:4]]
        [['set', 'WER', 'ins'], ['long', 'before', '30.0'], ['after', '10.0', '-']]
    """
    columns = columns_of(before)
    titles = [column.title for column in columns]

    if after is None:
        lines = [["set", *titles]]
        lines += [[name, *_cells(metrics, columns)] for name, metrics in before.items()]
        return _aligned(lines, num_left=1)

    lines = [["set", "", *titles]]
    # A set that only one of the two has is shown as well.
    for name in dict.fromkeys([*before, *after]):
        start = before.get(name, {})
        end = after.get(name, {})
        lines.append([name, labels[0], *_cells(start, columns)])
        lines.append(["", labels[1], *_cells(end, columns)])
        if is_speech(before):
            lines.append(["", "change", *_changes(start, end, columns)])
    return _aligned(lines, num_left=2)


def _cells(metrics: Mapping[str, float], columns: Sequence[Column]) -> list[str]:
    return [column.format.text(metrics.get(column.name, math.nan)) for column in columns]


def _changes(
    start: Mapping[str, float],
    end: Mapping[str, float],
    columns: Sequence[Column],
) -> list[str]:
    changes = []
    for column in columns:
        first = start.get(column.name, math.nan)
        last = end.get(column.name, math.nan)
        changes.append(column.format.change_text(first, last))
    return changes


#: The former name of `metric_table`.
figure_table = metric_table


def _aligned(lines: list[list[str]], num_left: int) -> str:
    """Columns of one width each, the first ``num_left`` flush left; a rule under the first line."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    rows = []
    for line in lines:
        cells = []
        for number, cell in enumerate(line):
            width = widths[number]
            cells.append(cell.ljust(width) if number < num_left else cell.rjust(width))
        rows.append("  ".join(cells).rstrip())

    rule = "-" * max(map(len, rows))
    return "\n".join([rows[0], rule, *rows[1:]])
