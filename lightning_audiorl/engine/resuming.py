"""A run that goes on from a checkpoint: its epoch is open, and the evaluation that it was killed in is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def reopen_epoch(checkpoint: dict[str, Any]) -> None:
    """Count the epoch of a checkpoint as unfinished where it ended because the run did, not the data.

    Training data have no end here, so a run has one epoch. A checkpoint that was written behind it would count as one
    of a run that has nothing left to do, whatever ``num_steps`` says.

    Args:
        checkpoint: as loaded; its progress is changed in place.

    Example:
        >>> batches = {"is_last_batch": False}
        >>> epochs = {"total": {"ready": 1, "started": 1, "processed": 1, "completed": 1}}
        >>> reopen_epoch({"loops": {"fit_loop": {"epoch_loop.batch_progress": batches, "epoch_progress": epochs}}})
        >>> epochs["total"]
        {'ready': 1, 'started': 1, 'processed': 0, 'completed': 0}
    """
    loop = checkpoint.get("loops", {}).get("fit_loop", {})
    batches = loop.get("epoch_loop.batch_progress")
    epochs = loop.get("epoch_progress")
    if batches is None or epochs is None or batches["is_last_batch"]:
        return

    for counts in epochs.values():
        if 0 < counts["started"] == counts["processed"]:
            counts["processed"] -= 1
            counts["completed"] = min(counts["completed"], counts["processed"])


def follow_schedule(schedules: Sequence[Any]) -> None:
    """Take the next step's learning rate from the schedule of this run, which may be longer than the checkpoint's.

    Args:
        schedules: of the run. Only those that are a function of the step can be asked; others go on as they were saved.
    """
    for schedule in schedules:
        if isinstance(schedule, LambdaLR):
            rates = schedule.get_last_lr()
            for index, group in enumerate(schedule.optimizer.param_groups):
                factor = schedule.lr_lambdas[index](schedule.last_epoch)
                group["lr"] = schedule.base_lrs[index] * factor
                rates[index] = group["lr"]


#: What a group of an optimizer holds beside its settings; the schedule says the rate.
_NO_SETTINGS = ("params", "param_names", "lr")


class FollowSettings(Callback):
    """Has a run that goes on take the optimizer's numbers from its settings, and not from the checkpoint.

    A checkpoint of torch holds learning rate, weight decay and the like beside the optimizer's state: another
    ``optim.lr`` would change nothing. A line says what is other than before. A schedule that is no function of the step
    goes on as it was saved; of such a run only the weight decay follows.
    """

    def __init__(self) -> None:
        self._groups: list[list[dict[str, Any]]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The optimizers are made, and not yet filled from a checkpoint."""
        self._groups = [_settings_of(optimizer) for optimizer in trainer.optimizers]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The checkpoint is loaded."""
        if not trainer.fit_loop.is_resuming:
            return

        schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        changes: list[str] = []
        for optimizer, groups in zip(trainer.optimizers, self._groups, strict=True):
            own = [one for one in schedules if one.optimizer is optimizer]
            for name, old, new in _differences(optimizer, groups):
                follows = name == "weight_decay" or all(isinstance(one, LambdaLR) for one in own)
                shown = name.removeprefix("initial_")
                if follows:
                    changes.append(f"{shown} {new} (before: {old})")
                else:
                    changes.append(f"{shown} stays {old}, as its schedule was saved, and not {new}")
                    continue

                for group, wanted in zip(optimizer.param_groups, groups, strict=True):
                    group[name] = wanted[name]
            for schedule in own:
                if isinstance(schedule, LambdaLR):
                    schedule.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]

        follow_schedule(schedules)
        if changes:
            rank_zero_warn(
                f"the optimizer goes on with other settings than the checkpoint's: {'; '.join(changes)}"
            )


def _settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The numbers and switches of each group of parameters."""
    groups = []
    for group in optimizer.param_groups:
        groups.append({name: value for name, value in group.items() if name not in _NO_SETTINGS})
    return groups


def _differences(
    optimizer: Optimizer, wanted: Sequence[dict[str, Any]]
) -> list[tuple[str, Any, Any]]:
    """Name, present value and wanted one of each setting that differs, of the first group in which it does."""
    found: dict[str, tuple[str, Any, Any]] = {}
    for group, values in zip(optimizer.param_groups, wanted, strict=True):
        for name, new in values.items():
            old = group.get(name)
            is_same = (
                list(old) == list(new) if isinstance(new, tuple | list) and old else old == new
            )
            if not is_same and name not in found:
                found[name] = (name, old, new)
    return list(found.values())


def make_missing_evaluation(trainer: Trainer, evaluated_step: int, rl_step: int) -> None:
    """Evaluate before the next step where a checkpoint was written just before an evaluation that never ended.

    Args:
        trainer: within a fit, before its first step.
        evaluated_step: of the last evaluation; -1 for none.
        rl_step: that the run goes on from.
    """
    # A checkpoint of the step itself is written first, and Lightning takes its evaluation for done.
    loop = trainer.fit_loop.epoch_loop
    fetcher = trainer.fit_loop._data_fetcher
    if fetcher is None or rl_step == 0 or evaluated_step == rl_step:
        return
    if not loop._should_check_val_fx(fetcher):
        return

    rank_zero_info(f"RL step {rl_step}: its evaluation was not finished, and is made now")
    trainer.validating = True
    loop.val_loop.restarting = False
    loop.val_loop.run()
    trainer.training = True


def begin_or_go_on(trainer: Trainer, module: Any) -> None:
    """What is due before the first step of this process.

    Args:
        trainer: within a fit, before its first step.
        module: the LightningModule, see `EvaluatedModule`.
    """
    is_done = module.rl_step >= module.num_steps
    if is_done:
        trainer.should_stop = True
        rank_zero_warn(
            f"already finished: RL step {module.rl_step} of {module.num_steps}, nothing is left to train; to go on, "
            "set model.init_args.num_steps higher"
        )
    if not trainer.fit_loop.is_resuming:
        return

    if not is_done:
        follow_schedule([config.scheduler for config in trainer.lr_scheduler_configs])
    evaluated = [one["rl_step"] for one in module.evaluations if one["kind"] == "val"]
    make_missing_evaluation(trainer, evaluated[-1] if evaluated else -1, module.rl_step)


def say_if_cut_short(trainer: Trainer, rl_step: int, num_steps: int) -> None:
    """Warn where the data or a number of epochs ended a run before ``num_steps``."""
    is_dry = trainer.fast_dev_run  # type: ignore[attr-defined]
    if rl_step < num_steps and not trainer.should_stop and not is_dry:
        rank_zero_warn(
            f"the run ended at RL step {rl_step} of {num_steps}: its training data ended (trainer.max_epochs: "
            f"{trainer.max_epochs}); give more data, or a lower model.init_args.num_steps"
        )
