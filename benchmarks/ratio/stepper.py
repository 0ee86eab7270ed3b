"""A callback that lets a run of ``audiorl fit`` take a step when it is told to."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from grpo_bench.driver import Driver
from lightning import Callback, Trainer


class Stepper(Callback):
    """Waits for a command before every step, and answers after it.

    A step lasts from one batch's end to the next one's: loading the data, the other callbacks and the log are in it.
    """

    # Of the process: the run's settings name this class, and cannot hold a pipe.
    driver: ClassVar[Driver]

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Say that the run is ready."""
        # The pass over the reference texts, in one step of ten, is work that earlier builds do not have.
        rarely_right = getattr(pl_module, "rarely_right", None)
        if rarely_right is not None:
            rarely_right.period = 0
        self._wait()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Report the step, and wait for the next command."""
        self.driver.report()
        self._wait()

    def _wait(self) -> None:
        if not self.driver.wait():
            # Nobody wants the last evaluation, nor the last checkpoint.
            os._exit(0)
