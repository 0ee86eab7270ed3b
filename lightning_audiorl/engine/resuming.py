"""A run that goes on from a checkpoint: its epoch is open, and the evaluation that it was killed in is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
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
            f"nothing left to train: the run stands at RL step {module.rl_step}, and num_steps is "
            f"{module.num_steps}; to go on, set model.init_args.num_steps higher"
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
