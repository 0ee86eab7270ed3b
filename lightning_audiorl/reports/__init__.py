"""What came out of runs, for people: paired intervals, a verdict in a sentence, one web page, runs side by side."""

from __future__ import annotations

from lightning_audiorl.reports.bootstrap import Interval, paired_intervals
from lightning_audiorl.reports.comparison import Difference, compare_rows
from lightning_audiorl.reports.row_files import ReportError, read_rows, write_rows
from lightning_audiorl.reports.verdict import verdict

__all__ = [
    "Difference",
    "Interval",
    "ReportError",
    "compare_rows",
    "paired_intervals",
    "read_rows",
    "verdict",
    "write_rows",
]
