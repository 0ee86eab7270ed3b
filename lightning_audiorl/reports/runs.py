"""A run as its folder holds it: the report as data, and what its evaluations said of each row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_audiorl.reports.comparison import Difference, Metrics, SetComparison, compare_rows
from lightning_audiorl.reports.row_files import ReportError, Rows, read_rows, rows_path
from lightning_audiorl.reports.verdict import Verdict, verdict

#: Of a fit; a validation or a test has one evaluation.
BEFORE = "before"
AFTER = "after"


@dataclass(frozen=True)
class Run:
    """A run that has ended, or been interrupted.

    Args:
        folder: of its report.
        report: as ``report.json`` holds it.
        rows: by stage.
    """

    folder: Path
    report: Mapping[str, Any]
    rows: Mapping[str, Rows] = field(default_factory=dict)

    @property
    def algorithm(self) -> str:
        """Such as ``GRPO``."""
        return str(self.report["algorithm"])

    @property
    def seed(self) -> int:
        """That keys the run."""
        return int(self.report["seeds"]["seed"])

    def rl_step(self, stage: str) -> int:
        """RL steps done at an evaluation."""
        return int(self.report[stage]["rl_step"])

    def metrics(self, stage: str) -> Metrics:
        """Metrics by set of an evaluation; none of one that was not made."""
        evaluation = self.report.get(stage)
        results: Metrics = {} if evaluation is None else evaluation["results"]
        return results

    @cached_property
    def change(self) -> list[SetComparison]:
        """What has changed from the start to the end, by set; empty without a second evaluation."""
        return compare_rows(
            self.metrics(BEFORE),
            self.metrics(AFTER),
            self.rows_of(BEFORE),
            self.rows_of(AFTER),
        )

    def rows_of(self, stage: str) -> Rows:
        """Rows by set of an evaluation; none where they are not known."""
        return self.rows.get(stage, {})


def report_folder(folder: Path) -> Path:
    """The folder of a run's report.

    Args:
        folder: of the run, or of its report.

    Raises:
        ReportError: where there is none.
    """
    if not folder.is_dir():
        raise ReportError(f"{folder}: there is no such folder; give the folder of a run")
    for one in (folder / "report", folder):
        if (one / "report.json").is_file():
            return one
    raise ReportError(
        f"{folder}: holds no report of a run (report/report.json); give the folder that `audiorl fit` wrote, and see "
        "that report.enabled was not false"
    )


def read_run(folder: Path) -> Run:
    """The run of a folder.

    Args:
        folder: that a fit wrote (trainer.default_root_dir), or the one of its report.

    Raises:
        ReportError: where it holds no report, or a damaged one.
    """
    place = report_folder(folder)
    path = place / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        whole = {"command", "algorithm", "seeds", "before", "after"} <= set(report)
    except (ValueError, TypeError) as error:
        raise ReportError(
            f"{path}: cannot be read as a report ({error}); fit or evaluate again"
        ) from None
    if not whole or report["before"] is None:
        raise ReportError(
            f"{path}: holds no evaluation; give the run evaluation sets (data.init_args.val)"
        )

    return Run(
        place,
        report,
        stored_rows(place, report),
    )


def read_control(folder: Path) -> Run:
    """A run that others are compared with: evaluated at its end.

    Args:
        folder: see `read_run`.

    Raises:
        ReportError: for a folder without such a run.
    """
    run = read_run(folder)
    if not run.metrics(AFTER):
        raise ReportError(
            f"{folder}: the run was evaluated only at its start, and nothing can be compared with its end; fit it to "
            "its end"
        )
    return run


def stored_rows(folder: Path, report: Mapping[str, Any]) -> dict[str, Rows]:
    """What the evaluations of a fit said of each row, by stage.

    Args:
        folder: of the report.
        report: as ``report.json`` holds it.

    Raises:
        ReportError: for a damaged file.
    """
    rows: dict[str, Rows] = {}
    for stage in (BEFORE, AFTER):
        evaluation = report[stage]
        if evaluation is not None:
            path = rows_path(folder, "report", stage)
            rows[stage] = read_rows(path, evaluation["rl_step"])
    return rows


def comparison_records(run: Run) -> list[dict[str, Any]]:
    """What has changed, one plain record per metric and set, for ``report.json`` and tables.

    Args:
        run: with two evaluations.
    """
    records = []
    for one in run.change:
        for difference in one.differences.values():
            records.append(_record(one, difference))
    return records


def _record(one: SetComparison, difference: Difference) -> dict[str, Any]:
    change = difference.change
    return {
        "set": one.name,
        "metric": difference.metric,
        "num_utterances": one.num_utterances,
        f"num_{one.unit}": one.num_units,
        # As fractions, whatever the page shows in percent.
        "before": difference.before.value,
        "after": difference.after.value,
        "difference": change.value,
        # Of the difference.
        "low": change.low,
        "high": change.high,
        "judgement": difference.judgement,
    }


def beside(run: Run, control: Run) -> list[SetComparison]:
    """The end of a run beside that of another one, by set.

    Args:
        run: that is judged.
        control: it is judged by.
    """
    return compare_rows(
        control.metrics(AFTER),
        run.metrics(AFTER),
        control.rows_of(AFTER),
        run.rows_of(AFTER),
    )


def verdicts(run: Run, control: Run | None = None) -> list[Verdict]:
    """What a run has achieved against its start, and against a control.

    Args:
        run: with two evaluations; one alone has no verdict.
        control: such as supervised training for the same number of steps; None is no control.
    """
    if not run.metrics(AFTER):
        return []
    start = f"the start (step {run.rl_step(BEFORE)})"
    found = [verdict(run.change, start)]

    if control is not None:
        name = f"the control ({control.algorithm}, seed {control.seed})"
        found.append(verdict(beside(run, control), name))
    return found
