"""What a run has been through, kept in memory and in its checkpoints, so that a resumed run's report is whole."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any


class History:
    """Every RL step's metrics in columns, and where the time went.

    A column is as long as there are steps; NaN stands where a step did not have the metric.

    Attributes:
        steps: RL steps.
        columns: values by log key.
        evaluation_s: seconds spent on evaluations.

    Example:
        >>> history = History()
        >>> history.append(1, {"loss": 0.5})
        >>> history.append(2, {"loss": 0.25, "seconds/update": 3.0})
        >>> history.columns["seconds/update"], history.phases_s
        ([nan, 3.0], {'update': 3.0})
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.columns: dict[str, list[float]] = {}
        self.evaluation_s = 0.0
        self._earlier_s = 0.0
        # Monotonic: somebody may set the wall clock while a run lasts.
        self._start_s = time.monotonic()

    def start(self) -> None:
        """The clock of this process begins here."""
        self._start_s = time.monotonic()

    @property
    def total_s(self) -> float:
        """Wall-clock seconds of the run, those before a resume included."""
        return self._earlier_s + time.monotonic() - self._start_s

    @property
    def phases_s(self) -> dict[str, float]:
        """Seconds of training by phase."""
        seconds = {}
        for name, column in self.columns.items():
            if name.startswith("seconds/"):
                seconds[name.removeprefix("seconds/")] = sum(s for s in column if not math.isnan(s))
        return seconds

    def append(self, rl_step: int, metrics: Mapping[str, float]) -> None:
        """Add a step.

        Args:
            rl_step: its number.
            metrics: its values by log key; a key that no step had before begins a column of NaN.
        """
        for name in metrics:
            self.columns.setdefault(name, [math.nan] * len(self.steps))

        self.steps.append(rl_step)
        for name, column in self.columns.items():
            column.append(float(metrics.get(name, math.nan)))

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return {
            "steps": self.steps,
            "columns": self.columns,
            "evaluation_s": self.evaluation_s,
            "total_s": self.total_s,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the `state_dict` of another process; its time counts."""
        self.steps = list(state["steps"])
        self.columns = {name: list(column) for name, column in state["columns"].items()}
        self.evaluation_s = state["evaluation_s"]

        # A monotonic clock means nothing in another process: only its total goes on.
        self._earlier_s = state["total_s"]
        self.start()
