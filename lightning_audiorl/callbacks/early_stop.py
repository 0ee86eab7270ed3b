"""Ends a run that no longer gains by a judge held out, or that pays for its gain with something else."""

from __future__ import annotations

import logging
import math

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lightning_audiorl.callbacks.guards import (
    Guard,
    Mode,
    broken_guards,
    metric_at,
    require_evaluations,
    since_best,
)
from lightning_audiorl.callbacks.outputs import tensorboard_writers
from lightning_audiorl.callbacks.view import RunView, run_view, validations

_log = logging.getLogger(__name__)


class EarlyStop(Callback):
    """Ends a fit after an evaluation, when a metric has stood still too long or a guard does not hold.

    The end is the usual one: checkpoint, report, export; the evaluation at hand is the last. Off without ``monitor``
    and ``guards``.

    The decision is a function of the run's evaluations, which every checkpoint holds: a resumed run decides as one that
    was never killed, and a run that was stopped takes no further step when it is resumed with the same settings.

    Args:
        monitor: metric that should improve, such as ``val/dev/held_out_cer``; None watches none.
        mode: whether lower or higher is better.
        patience: evaluations in a row without an improvement after which the run ends. The first evaluation, before
            the first step, is the first to improve on.
        min_delta: an improvement is better than the best so far by more than this, absolute.
        guards: metrics by log key that must hold; the first evaluation at which one does not is the last.

    Attributes:
        reason: why the run was ended; None where it was not.

    Raises:
        ValueError: for a patience, distance or mode that makes no sense.

    Example:
        >>> stop = EarlyStop("val/dev/held_out_cer", patience=2, guards={"val/dev/similarity": Guard(fall=0.05)})
        >>> stop.patience, stop.reason
        (2, None)
    """

    def __init__(
        self,
        monitor: str | None = None,
        mode: Mode = "min",
        patience: int = 3,
        min_delta: float = 0.0,
        guards: dict[str, Guard] | None = None,
    ) -> None:
        if patience < 1 or not 0 <= min_delta < math.inf or mode not in ("min", "max"):
            raise ValueError(
                "EarlyStop: want patience >= 1, a finite min_delta >= 0, mode min or max; got "
                f"patience={patience}, min_delta={min_delta}, mode={mode!r}"
            )
        self.monitor = monitor
        self.mode = mode
        self.patience = patience
        self.min_delta = min_delta
        self.guards = guards or {}
        self.reason: str | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that was ended and is resumed takes no further step."""
        if self.monitor is not None or self.guards:
            require_evaluations(trainer, "EarlyStop.monitor or guards")
            self._warn_of_no_place(trainer, run_view(pl_module))
        self._decide(trainer, run_view(pl_module))

    def _warn_of_no_place(self, trainer: Trainer, run: RunView) -> None:
        """Say so where no evaluation comes before the end of the run."""
        # There is no number of steps where evaluations come by time.
        interval = getattr(trainer, "val_check_interval", None)
        is_late = isinstance(interval, int) and interval >= run.num_steps > run.rl_step
        if is_late and trainer.is_global_zero:
            _log.warning(
                "EarlyStop can end nothing: no evaluation comes before RL step %d, the last; set "
                "trainer.val_check_interval to fewer RL steps",
                run.num_steps,
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide whether this evaluation is the last."""
        if trainer.state.fn == "fit":
            self._decide(trainer, run_view(pl_module))

    def _decide(self, trainer: Trainer, run: RunView) -> None:
        """All ranks do what rank 0 says."""
        is_off = self.monitor is None and not self.guards
        if is_off or run.rl_step >= run.num_steps:
            return

        # A rank that went on alone would wait for the others for ever.
        self.reason = trainer.strategy.broadcast(self._why(run))
        if self.reason is None:
            return

        trainer.should_stop = True
        if trainer.is_global_zero:
            _log.warning("RL step %d: the run ends here; %s", run.rl_step, self.reason)
        for writer in tensorboard_writers(trainer):
            writer.add_text("early_stop", self.reason, run.rl_step)

    def _why(self, run: RunView) -> str | None:
        """Why the run ends at its last evaluation; None where it goes on."""
        evaluations = validations(run)
        if not evaluations:
            return None

        broken = broken_guards(evaluations, self.guards, "EarlyStop.guards")
        if self.monitor is not None:
            values = [metric_at(one, self.monitor, "EarlyStop.monitor") for one in evaluations]
            waited = since_best(values, self.mode, self.min_delta)
            if waited >= self.patience:
                broken.append(
                    f"{self.monitor} has not improved for {waited} evaluations, now {values[-1]:.4g}"
                )
        return "; ".join(broken) or None
