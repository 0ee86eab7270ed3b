"""Checkpoints by RL step, each written whole before it takes its name."""

from __future__ import annotations

import logging
import math
import os
import pickle
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_audiorl.callbacks.guards import (
    Guard,
    Mode,
    broken_guards,
    metric_at,
    require_evaluations,
    start_value,
)
from lightning_audiorl.callbacks.outputs import run_folder, writing
from lightning_audiorl.callbacks.view import RunView, run_view, validations

_log = logging.getLogger(__name__)


def publish(written: Path, target: Path) -> None:
    """Give a finished file one more name, replacing what had it; at no moment is ``target`` missing or partial."""
    link = target.with_name(f".{target.name}.new")
    link.unlink(missing_ok=True)
    try:
        os.link(written, link)
    except OSError:  # a file system without hard links
        shutil.copyfile(written, link)

    # In one step: whoever reads the target sees the old file or the new one.
    os.replace(link, target)


def saved_step(path: Path, state_key: str) -> int:
    """The RL step at which an `RLCheckpoint` wrote a file; -1 where there is none that can be read.

    Args:
        path: of the file.
        state_key: of the callback.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        step: int = checkpoint["callbacks"][state_key]["saved_step"]
    except (OSError, EOFError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError):
        return -1
    return step


class RLCheckpoint(Checkpoint):
    """Saves ``step-<rl_step>.ckpt`` and ``last.ckpt``, and ``best.ckpt`` if asked.

    A killed run goes on from ``last.ckpt`` (``fit --ckpt_path last``). The step after which the run ends is saved
    once its evaluation is in. One that is told to end (SIGTERM) is saved where it stands.

    The best is never worse than the evaluation before the first step; where none is as good, there is no ``best.ckpt``.

    Args:
        every_n_steps: RL steps between two checkpoints; 0 saves only at the end.
        keep: how many ``step-*.ckpt`` stay beside ``last.ckpt``.
        dirpath: default ``<default_root_dir>/checkpoints``.
        monitor: metric that decides what is best, such as ``val/long/wer``; None keeps no best.
        mode: whether the lowest or the highest value is best.
        guards: metrics by log key that must hold at the evaluation that is best.

    Raises:
        ValueError: for a negative number, another mode, or guards without a monitor.
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        keep: int = 2,
        dirpath: str | None = None,
        monitor: str | None = None,
        mode: Mode = "min",
        guards: dict[str, Guard] | None = None,
    ) -> None:
        super().__init__()
        if every_n_steps < 0 or keep < 0 or mode not in ("min", "max"):
            raise ValueError(
                "RLCheckpoint: want every_n_steps >= 0, keep >= 0, mode min or max; got "
                f"every_n_steps={every_n_steps}, keep={keep}, mode={mode!r}"
            )
        if guards and monitor is None:
            raise ValueError(
                "RLCheckpoint.guards say which evaluation may be best; set monitor too, or leave them out"
            )

        self.every_n_steps = every_n_steps
        self.keep = keep
        self.dirpath = dirpath
        self.monitor = monitor
        self.mode = mode
        self.guards = guards or {}

        # What a resumed run has to know, see `state_dict`.
        self.kept: list[str] = []
        self.saved_step = -1
        self.best_value = math.nan
        self.best_step = -1

    def path(self, trainer: Trainer, name: str) -> Path:
        """Where the checkpoint ``name`` ("last", "best", "step-000100") stands."""
        return run_folder(trainer, self.dirpath, "checkpoints") / f"{name}.ckpt"

    def state_dict(self) -> dict[str, Any]:
        """Which checkpoints are kept, and the best value so far, with the settings that it is the best by."""
        names = ("kept", "saved_step", "best_value", "best_step")
        state = {name: getattr(self, name) for name in names}
        return state | {"best_by": self._best_by()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the `state_dict` of another process; by another monitor the best begins anew."""
        self.kept = list(state_dict["kept"])
        self.saved_step = state_dict["saved_step"]

        # Earlier builds did not say what their best was the best by.
        best_by = state_dict.get("best_by", self._best_by())
        if best_by == self._best_by():
            self.best_value = state_dict["best_value"]
            self.best_step = state_dict["best_step"]
        elif state_dict["best_step"] >= 0 and self.monitor is not None:
            _log.warning(
                "RLCheckpoint: the checkpoint's best (RL step %d, %.4g) is by %s, %s, and not by %s, %s with the "
                "guards given; the best begins anew, and best.ckpt stays as it was until then",
                state_dict["best_step"],
                state_dict["best_value"],
                best_by["monitor"],
                best_by["mode"],
                self.monitor,
                self.mode,
            )

    def _best_by(self) -> dict[str, Any]:
        guards = {key: asdict(guard) for key, guard in self.guards.items()}
        return {"monitor": self.monitor, "mode": self.mode, "guards": guards}

    def _is_due(self, rl_step: int) -> bool:
        return self.every_n_steps > 0 and rl_step > 0 and rl_step % self.every_n_steps == 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See that ``best.ckpt`` is the best that the checkpoint speaks of; it may be in another run's folder."""
        if self.monitor is not None:
            require_evaluations(trainer, "RLCheckpoint.monitor")
        if self.best_step < 0 or trainer.ckpt_path is None:
            return

        is_there = trainer.is_global_zero and self._find_best(trainer, run_view(pl_module))
        if not trainer.strategy.broadcast(is_there):
            self.best_step = -1
            self.best_value = math.nan

    def _find_best(self, trainer: Trainer, run: RunView) -> bool:
        """Whether ``best.ckpt`` is in this folder, or could be brought here."""
        best = self.path(trainer, "best")
        here = saved_step(best, self.state_key)

        # Killed between two names of one file: the steps up to it are made again.
        if here == self.best_step or here > run.rl_step:
            return True

        resumed = Path(str(trainer.ckpt_path))
        for source in (resumed.with_name("best.ckpt"), resumed):
            if saved_step(source, self.state_key) == self.best_step:
                best.parent.mkdir(parents=True, exist_ok=True)
                publish(source, best)
                return True

        _log.warning(
            "RLCheckpoint: the best so far (%s, RL step %d, %.4g) is neither %s nor beside %s; the best begins anew",
            self.monitor,
            self.best_step,
            self.best_value,
            best,
            resumed,
        )
        return False

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        *_: Any,
    ) -> None:
        """Save where a step is due; the last one waits for its evaluation."""
        run = run_view(pl_module)
        if self._is_due(run.rl_step) and not trainer.should_stop:
            self._save(trainer, run.rl_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the best, the last, and again where a step is due: the evaluation belongs to the checkpoint."""
        if trainer.state.fn != "fit":
            return

        # Before the sanity check returns: a monitor that does not exist shall not cost the time until the first one.
        run = run_view(pl_module)
        value = self._monitored(run)
        if trainer.sanity_checking:
            return

        is_best = self._is_best(run, value)
        if is_best:
            self.best_value = value
            self.best_step = run.rl_step
        if is_best or trainer.should_stop or self._is_due(run.rl_step):
            self._save(trainer, run.rl_step, is_best)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last step where no evaluation has."""
        run = run_view(pl_module)
        if self.saved_step != run.rl_step:
            self._save(trainer, run.rl_step)
        if self.monitor is not None and trainer.is_global_zero:
            self._warn_of_no_gain(run)

    def on_exception(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        exception: BaseException,
    ) -> None:
        """Save the step at hand where the run was told to end."""
        # With more ranks than one not all of them may be here, and a save waits for all.
        run = run_view(pl_module)
        is_alone = trainer.world_size == 1
        if isinstance(exception, SIGTERMException) and is_alone and self.saved_step != run.rl_step:
            self._save(trainer, run.rl_step)

    def _warn_of_no_gain(self, run: RunView) -> None:
        """Say so where no evaluation was better than that before the first step."""
        if not validations(run):
            return
        if self.best_step < 0:
            _log.warning("no best checkpoint: %s", self.why_no_best(run))
        elif self.best_value == self._start_value(run):
            _log.warning(
                "no evaluation of %s was better than %.4g, that before the first step; best.ckpt (RL step %d) is as "
                "good",
                self.monitor,
                self.best_value,
                self.best_step,
            )

    def why_no_best(self, run: RunView) -> str:
        """Why a run with a monitor has no best checkpoint, for a message."""
        start = self._start_value(run)
        if math.isnan(start) or self.guards:
            return f"{self.monitor} was never a number whose guards hold"
        return f"no evaluation of {self.monitor} was as good as {start:.4g}, that before the first step"

    def _start_value(self, run: RunView) -> float:
        assert self.monitor is not None
        return start_value(validations(run), self.monitor)

    def _is_best(self, run: RunView, value: float) -> bool:
        """Whether no evaluation before was as good, and that before the first step not better."""
        if math.isnan(value):
            return False

        # Written so that any value is better than the NaN of a run that had none before.
        sign = 1 if self.mode == "min" else -1
        is_worse_than_start = sign * value > sign * self._start_value(run)
        return not is_worse_than_start and not sign * value >= sign * self.best_value

    def _monitored(self, run: RunView) -> float:
        """NaN without a monitor, and where a guard does not hold."""
        if self.monitor is None:
            return math.nan

        evaluations = validations(run)
        value = metric_at(evaluations[-1], self.monitor, "RLCheckpoint.monitor")
        broken = broken_guards(evaluations, self.guards, "RLCheckpoint.guards")
        return math.nan if broken else value

    def _save(self, trainer: Trainer, rl_step: int, is_best: bool = False) -> None:
        """Write one file, then give it its names; what is no longer kept goes last."""
        # A dry run must not replace the checkpoints of a real one.
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return

        # Before writing: this object's own state goes into the file, too.
        name = f"step-{rl_step:06d}"
        known = [*(other for other in self.kept if other != name), name]
        num_outdated = max(0, len(known) - self.keep)
        outdated = known[:num_outdated]
        self.kept = known[num_outdated:]
        self.saved_step = rl_step

        targets = ["last"]
        if is_best:
            targets.insert(0, "best")
        if self.keep:
            targets.insert(0, name)

        folder = self.path(trainer, "last").parent
        with writing(f"the checkpoint of RL step {rl_step}", folder):
            self._write(trainer, targets)
        if trainer.is_global_zero:
            for other in outdated:
                self.path(trainer, other).unlink(missing_ok=True)

    def _write(self, trainer: Trainer, targets: list[str]) -> None:
        written = self.path(trainer, ".saving")
        written.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Every rank takes part: a sharded strategy gathers the weights here.
            trainer.save_checkpoint(written, weights_only=False)
            if not trainer.is_global_zero:
                return

            # On the disk, before any name points to it: a machine that dies here leaves the old files whole.
            with written.open("rb") as file:
                os.fsync(file.fileno())
            for target in targets:
                publish(written, self.path(trainer, target))
        finally:
            # What a full disk has taken of it is in the way of everything else.
            if trainer.is_global_zero:
                written.unlink(missing_ok=True)
