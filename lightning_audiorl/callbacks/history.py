"""What a run has been through, kept in memory and in its checkpoints, so that a resumed run's report is whole."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any


class History:
    """Every RL step's figures in columns, and where the time went.

    A column is as long as there are steps; NaN stands where a step did not have the figure.
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.columns: dict[str, list[float]] = {}
        self.evaluation_s = 0.0
        self._earlier_s = 0.0
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
        return {
            name.removeprefix("seconds/"): sum(s for s in column if not math.isnan(s))
            for name, column in self.columns.items()
            if name.startswith("seconds/")
        }

    def append(self, rl_step: int, metrics: Mapping[str, float]) -> None:
        """Add a step."""
        for name in metrics:
            self.columns.setdefault(name, [math.nan] * len(self.steps))
        self.steps.append(rl_step)
        for name, column in self.columns.items():
            column.append(float(metrics.get(name, math.nan)))

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "columns": self.columns,
            "evaluation_s": self.evaluation_s,
            "total_s": self.total_s,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = list(state["steps"])
        self.columns = {name: list(column) for name, column in state["columns"].items()}
        self.evaluation_s, self._earlier_s = state["evaluation_s"], state["total_s"]
        self.start()
