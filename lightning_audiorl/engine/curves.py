"""Where a run's metrics go: every logger gets all of them, TensorBoard those that change."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_audiorl.metrics.charts import is_always_drawn


@dataclass
class Constant:
    """A curve that has had one value since its first point.

    Args:
        value: of all points.
        first_step, last_step: RL steps of the first point and the last one.
        first_s, last_s: when they were measured, in seconds since 1970.
    """

    value: float
    first_step: int
    last_step: int
    first_s: float
    last_s: float

    def has(self, value: float) -> bool:
        """Whether a value is the same; NaN is the same as NaN."""
        return value == self.value or (math.isnan(value) and math.isnan(self.value))


class Curves(Callback):
    """Writes metrics to the loggers of a run.

    TensorBoard has one chart for each name, and a run a hundred names, of which many never change: a learning rate
    without a schedule, rows left out, of which there are none. So a curve that has had one value since its first point
    is held back there. Once it changes it is drawn with its first and its last constant point, and from then on: the
    curve looks as if it had never been held back. What `is_always_drawn` is never held back. Other loggers, the report
    and its JSON have every point.

    What is held back is part of a checkpoint, so that a run that goes on draws what it would have drawn. One that goes
    on from a checkpoint of an earlier build, which held nothing back, draws everything, as do ``validate`` and
    ``test``, which have one point of each curve.
    """

    def __init__(self) -> None:
        super().__init__()
        self.constants: dict[str, Constant] = {}
        self.drawn: set[str] = set()
        self._holds_back = False
        self._is_resumed = False

    def state_dict(self) -> dict[str, Any]:
        """What is held back, and what no longer is."""
        constants = {name: list(astuple(one)) for name, one in self.constants.items()}
        return {"constants": constants, "drawn": sorted(self.drawn)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the `state_dict` of another process."""
        self._is_resumed = True
        self.constants = {name: Constant(*one) for name, one in state_dict["constants"].items()}
        self.drawn = set(state_dict["drawn"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on curves have more points than one."""
        self._holds_back = trainer.ckpt_path is None or self._is_resumed

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An evaluation of the same object is no part of the curves."""
        self._holds_back = False

    def write(self, loggers: Sequence[Any], metrics: Mapping[str, float], rl_step: int) -> None:
        """Log metrics, and have them on disk: a killed run loses no point that a checkpoint counts.

        Args:
            loggers: of the trainer, Lightning's.
            metrics: by log key.
            rl_step: of the run.
        """
        begun = {}
        changing = dict(metrics)
        if self._holds_back:
            begun = self._begin(metrics, rl_step)
            changing = {name: metrics[name] for name in metrics if name not in self.constants}
        for logger in loggers:
            if isinstance(logger, TensorBoardLogger):
                _write_past(logger, begun)
                logger.log_metrics(changing, step=rl_step)
            else:
                logger.log_metrics(dict(metrics), step=rl_step)
            logger.save()

    def _begin(self, metrics: Mapping[str, float], rl_step: int) -> dict[str, Constant]:
        """Take in a point of each curve; returns those that are no longer constant, as they were until now."""
        begun = {}
        now_s = time.time()
        for name, value in metrics.items():
            if name in self.drawn or is_always_drawn(name):
                continue

            known = self.constants.get(name)
            if known is None:
                self.constants[name] = Constant(value, rl_step, rl_step, now_s, now_s)
            elif known.has(value):
                known.last_step = rl_step
                known.last_s = now_s
            else:
                begun[name] = self.constants.pop(name)
                self.drawn.add(name)
        return begun


def _write_past(logger: TensorBoardLogger, begun: Mapping[str, Constant]) -> None:
    """The first and the last point of curves that were held back, where and when they were measured."""
    for name, one in begun.items():
        points = {one.first_step: one.first_s, one.last_step: one.last_s}
        for rl_step, seconds in points.items():
            logger.experiment.add_scalar(name, one.value, rl_step, walltime=seconds)
