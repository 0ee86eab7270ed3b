"""Runs side by side: each group of seeds against its start, and against a control such as supervised training."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_audiorl.metrics.rows import Part, RowResult
from lightning_audiorl.reports.comparison import (
    Difference,
    Metrics,
    SetComparison,
    compare_rows,
    number,
)
from lightning_audiorl.reports.row_files import ReportError, Rows
from lightning_audiorl.reports.runs import AFTER, BEFORE, Run, read_run
from lightning_audiorl.reports.verdict import Verdict, verdict

#: A group of this name is the control where none is named.
CONTROL = "SFT"


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    Args:
        name: such as the algorithm.
        runs: by seed.
    """

    name: str
    runs: Mapping[int, Run]

    @property
    def size(self) -> str:
        """Such as ``GRPO, 5 seeds``."""
        seeds = "seed" if len(self.runs) == 1 else "seeds"
        return f"{self.name}, {len(self.runs)} {seeds}"

    def values(
        self,
        set_name: str,
        metric: str,
    ) -> list[float]:
        """A metric at the end of each run."""
        values = []
        for run in self.runs.values():
            values.append(number(run.metrics(AFTER).get(set_name, {}).get(metric)))
        return values

    def metrics(self, stage: str) -> Metrics:
        """Means over the runs, by set; NaN where a run has none."""
        first = next(iter(self.runs.values()))
        means: dict[str, dict[str, float | None]] = {}
        for set_name, metrics in first.metrics(stage).items():
            means[set_name] = {}
            for name in metrics:
                values = [
                    number(run.metrics(stage).get(set_name, {}).get(name))
                    for run in self.runs.values()
                ]
                means[set_name][name] = sum(values) / len(values)
        return means

    def rows(self, stage: str) -> Rows:
        """What the runs say of each row, together: all seeds of a row stand and fall with it."""
        pooled: dict[str, list[RowResult]] = {}
        runs = list(self.runs.values())
        for set_name in runs[0].rows_of(stage):
            of_runs = [run.rows_of(stage)[set_name] for run in runs]
            pooled[set_name] = [_pooled(results) for results in zip(*of_runs, strict=True)]
        return pooled


def _pooled(results: Sequence[RowResult]) -> RowResult:
    """The mean of what several runs say of a row."""
    num = len(results)
    parts: dict[str, Part] = {}
    for result in results:
        for name, (above, below) in result.parts.items():
            so_far = parts.get(name, (0.0, 0.0))
            parts[name] = (so_far[0] + above / num, so_far[1] + below / num)
    return RowResult(results[0].row, results[0].texts, parts)


@dataclass(frozen=True)
class Beside:
    """A group beside its start and beside the control.

    Args:
        group: of runs.
        from_start: by set.
        from_control: by set; empty of the control itself, and without one.
        control: name of the control; "" without one.
    """

    group: Group
    from_start: Mapping[str, SetComparison]
    from_control: Mapping[str, SetComparison]
    control: str = ""

    @property
    def verdicts(self) -> list[Verdict]:
        """Against the start, then against the control."""
        found = [verdict(list(self.from_start.values()), "the start")]
        if self.from_control:
            found.append(verdict(list(self.from_control.values()), f"the control ({self.control})"))
        return found

    def against_control(
        self,
        set_name: str,
        metric: str,
    ) -> Difference | None:
        """A metric less that of the control; None without one."""
        one = self.from_control.get(set_name)
        return None if one is None else one.differences.get(metric)


def spread(values: Sequence[float]) -> float:
    """The standard deviation over seeds; NaN of one alone.

    Example:
        >>> spread([0.5]), spread([0.25, 0.75]) > 0.35
        (nan, True)
    """
    known = [value for value in values if math.isfinite(value)]
    return statistics.stdev(known) if len(known) > 1 else math.nan


# --- reading


def read_groups(places: Sequence[str]) -> list[Group]:
    """Runs by group: by the name before ``=``, or else by their algorithm.

    Args:
        places: ``FOLDER`` or ``NAME=FOLDER``.

    Raises:
        ReportError: for folders without a run that can be compared, for two runs of one group and seed, and for runs
            that were evaluated on other rows.
    """
    named: dict[str, dict[int, Run]] = {}
    for place in places:
        name, folder = _name_and_folder(place)
        run = read_run(Path(folder))
        _require_rows(run, folder)

        seeds = named.setdefault(name or run.algorithm, {})
        if run.seed in seeds:
            raise ReportError(
                f"{folder}: a second run of {name or run.algorithm} with seed {run.seed}, beside "
                f"{seeds[run.seed].folder.parent}; give groups a name, as in base={folder}"
            )
        seeds[run.seed] = run

    groups = [Group(name, dict(sorted(runs.items()))) for name, runs in named.items()]
    _require_same_rows(groups)
    return groups


def _name_and_folder(place: str) -> tuple[str, str]:
    """The two halves of ``NAME=FOLDER``; a folder that is there may have a ``=`` in its name."""
    if Path(place).exists() or "=" not in place:
        return "", place
    name, _, folder = place.partition("=")
    return name, folder


def _require_rows(run: Run, folder: str) -> None:
    if not run.metrics(AFTER):
        raise ReportError(
            f"{folder}: the run was evaluated only at its start, and has nothing to compare; fit it to its end"
        )
    for stage in (BEFORE, AFTER):
        if not any(run.rows_of(stage).values()):
            raise ReportError(
                f"{run.folder}: holds no predictions of the evaluation at RL step {run.rl_step(stage)} "
                f"(report.{stage}.jsonl), without which runs cannot be compared in pairs; fit it again"
            )


def _require_same_rows(groups: Sequence[Group]) -> None:
    """See that all runs were evaluated on the same rows, before and after."""
    runs = [run for group in groups for run in group.runs.values()]
    first = runs[0]
    wanted = _row_ids(first, BEFORE)
    for run in runs:
        for stage in (BEFORE, AFTER):
            given = _row_ids(run, stage)
            for set_name in wanted | given:
                if wanted.get(set_name) != given.get(set_name):
                    raise ReportError(
                        f"{run.folder.parent}: its evaluation set {set_name!r} has other rows than that of "
                        f"{first.folder.parent}; compare runs with the same data.init_args.val"
                    )


def _row_ids(run: Run, stage: str) -> dict[str, list[str]]:
    ids = {}
    for set_name, results in run.rows_of(stage).items():
        ids[set_name] = [one.row.id for one in results]
    return ids


# --- comparing


def control_of(groups: Sequence[Group], name: str | None) -> Group | None:
    """The group that others are compared with; None without one.

    Args:
        groups: of `read_groups`.
        name: of the group; None takes `CONTROL` where there is one beside others.

    Raises:
        ReportError: where no group has the name.
    """
    by_name = {group.name: group for group in groups}
    if name is not None and name not in by_name:
        raise ReportError(f"--control {name}: there is no such group among {', '.join(by_name)}")
    if name is None and len(groups) == 1:
        return None
    return by_name.get(name or CONTROL)


def side_by_side(groups: Sequence[Group], control: Group | None) -> list[Beside]:
    """Every group beside its start and the control; the control first.

    Args:
        groups: of `read_groups`.
        control: one of them; None compares with the start alone.
    """
    found = []
    for group in sorted(groups, key=lambda one: one is not control):
        end = group.metrics(AFTER)
        rows = group.rows(AFTER)
        from_start = compare_rows(
            group.metrics(BEFORE),
            end,
            group.rows(BEFORE),
            rows,
        )

        from_control: list[SetComparison] = []
        if control is not None and group is not control:
            from_control = compare_rows(
                control.metrics(AFTER),
                end,
                control.rows(AFTER),
                rows,
            )

        found.append(
            Beside(
                group,
                {one.name: one for one in from_start},
                {one.name: one for one in from_control},
                control="" if control is None else control.name,
            )
        )
    return found
