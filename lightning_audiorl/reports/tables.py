"""Runs side by side as tables: rows of plain cells, CSV, LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_audiorl.reports.compare import Beside, spread
from lightning_audiorl.reports.comparison import Difference, SetComparison
from lightning_audiorl.reports.verdict import headline_metrics

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


@dataclass(frozen=True)
class Entry:
    """A metric of a set of a group, beside its start and the control.

    Args:
        beside: the group.
        of_set: the set.
        from_start: the metric less that of the start.
        from_control: the metric less that of the control; None without one.
    """

    beside: Beside
    of_set: SetComparison
    from_start: Difference
    from_control: Difference | None

    @property
    def values(self) -> list[float]:
        """At the end of each run."""
        return self.beside.group.values(self.of_set.name, self.from_start.metric)

    @property
    def after_text(self) -> str:
        """The mean over seeds, and how far they spread."""
        after = self.from_start.after_text + self.from_start.unit
        deviation = spread(self.values)
        if math.isnan(deviation):
            return after
        return f"{after} ± {self.from_start.format.text(deviation)}"


def entries(found: Sequence[Beside], only_headlines: bool = False) -> Iterator[Entry]:
    """Every metric of every set, group by group.

    Args:
        found: of `side_by_side`.
        only_headlines: leave out all but the metrics by which a set is judged.
    """
    for set_name in found[0].from_start:
        for metric in _metrics(found, set_name, only_headlines):
            for one in found:
                of_set = one.from_start[set_name]
                difference = of_set.differences.get(metric)
                if difference is not None:
                    from_control = one.against_control(set_name, metric)
                    yield Entry(
                        one,
                        of_set,
                        difference,
                        from_control,
                    )


def _metrics(
    found: Sequence[Beside],
    set_name: str,
    only_headlines: bool,
) -> list[str]:
    of_set = found[0].from_start[set_name]
    if only_headlines:
        return [one.metric for one in headline_metrics(of_set)]
    return list(of_set.differences)


HEADER = ("set", "metric", "group", "start", "end", "less the start", "less the control")


def cells(found: Sequence[Beside]) -> list[list[str]]:
    """The headline metrics as text, under `HEADER`.

    Args:
        found: of `side_by_side`.
    """
    lines = []
    for one in entries(found, only_headlines=True):
        start = one.from_start
        lines.append(
            [
                f"{one.of_set.name} ({one.of_set.size})",
                start.name,
                one.beside.group.size,
                start.before_text + start.unit,
                one.after_text,
                change_cell(start),
                change_cell(one.from_control),
            ]
        )
    return lines


def change_cell(difference: Difference | None) -> str:
    """A difference and its interval; a dash without one.

    Args:
        difference: of two evaluations.
    """
    if difference is None:
        return "-"
    if not difference.interval_text:
        return difference.change_text
    return f"{difference.change_text} ({difference.interval_text})"


def csv_text(found: Sequence[Beside]) -> str:
    """Every metric, as fractions, for other programs.

    Args:
        found: of `side_by_side`.
    """
    records = [_record(one) for one in entries(found)]
    file = io.StringIO()
    writer = csv.DictWriter(
        file,
        list(records[0]),
        lineterminator="\n",
    )
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()


def _record(one: Entry) -> dict[str, Any]:
    start = one.from_start
    values = [value for value in one.values if math.isfinite(value)]
    record: dict[str, Any] = {
        "set": one.of_set.name,
        "metric": start.metric,
        "group": one.beside.group.name,
        # How much it stands on.
        "num_seeds": len(one.beside.group.runs),
        "num_utterances": one.of_set.num_utterances,
        "num_units": one.of_set.num_units,
        "unit": one.of_set.unit,
        # Values.
        "start": start.before.value,
        "end": start.after.value,
        "end_std": spread(values),
        "end_min": min(values, default=math.nan),
        "end_max": max(values, default=math.nan),
    }
    for name, difference in (("start", start), ("control", one.from_control)):
        change = None if difference is None else difference.change
        record[f"less_{name}"] = "" if change is None else change.value
        record[f"less_{name}_low"] = "" if change is None else change.low
        record[f"less_{name}_high"] = "" if change is None else change.high
    return record


def latex_escaped(text: str) -> str:
    r"""A text as LaTeX prints it.

    Example:
        >>> print(latex_escaped("dev_1 & 50 %"))
        dev\_1 \& 50 \%
    """
    return "".join(_LATEX.get(one, one) for one in text)


def latex_text(found: Sequence[Beside]) -> str:
    """The headline metrics as a table for booktabs.

    Args:
        found: of `side_by_side`.
    """
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{tabular}{lllrrrr}",
        "\\toprule",
        " & ".join(HEADER) + " \\\\",
        "\\midrule",
    ]
    for line in cells(found):
        # In a font without them, the two signs would be holes.
        shown = [latex_escaped(cell).replace("±", "$\\pm$") for cell in line]
        lines.append(" & ".join(shown) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    return "\n".join(lines) + "\n"
