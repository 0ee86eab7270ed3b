"""Checkpoints by RL step, each written whole before it takes its name."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_audiorl.callbacks.guards import Guard, Mode, broken_guards, metric_at
from lightning_audiorl.callbacks.outputs import run_folder
from lightning_audiorl.callbacks.view import RunView, run_view, validations


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


class RLCheckpoint(Checkpoint):
    """Saves ``step-<rl_step>.ckpt`` and ``last.ckpt``, and ``best.ckpt`` if asked.

    A killed run goes on from ``last.ckpt`` (``fit --ckpt_path last``). The step after which the run ends is saved
    once its evaluation is in.

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
        """Which checkpoints are kept, and the best value so far."""
        names = ("kept", "saved_step", "best_value", "best_step")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the `state_dict` of another process."""
        for name, value in state_dict.items():
            setattr(self, name, value)

    def _is_due(self, rl_step: int) -> bool:
        return self.every_n_steps > 0 and rl_step > 0 and rl_step % self.every_n_steps == 0

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

        # Written so that any value is better than the NaN that the run begins with.
        sign = 1 if self.mode == "min" else -1
        is_best = not math.isnan(value) and not sign * value >= sign * self.best_value
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

        # Every rank takes part: a sharded strategy gathers the weights here.
        written = self.path(trainer, ".saving")
        written.parent.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(written, weights_only=False)
        if not trainer.is_global_zero:
            return

        # On the disk, before any name points to it: a machine that dies here leaves the old files whole.
        with written.open("rb") as file:
            os.fsync(file.fileno())

        targets = ["last"]
        if is_best:
            targets.insert(0, "best")
        if self.keep:
            targets.insert(0, name)
        for target in targets:
            publish(written, self.path(trainer, target))

        written.unlink()
        for other in outdated:
            self.path(trainer, other).unlink(missing_ok=True)
