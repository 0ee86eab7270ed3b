"""What the trainings of codecs, judges and Token2Text share: AdamW along a cosine, and a run of so many batches."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn


def warmup_cosine(step: int, warmup_steps: int, num_steps: int) -> float:
    """The share of the peak learning rate at a step: a line up to 1, then half a cosine down to 0 at ``num_steps``.

    Example:
        >>> [round(warmup_cosine(step, warmup_steps=2, num_steps=6), 3) for step in (0, 1, 2, 4, 6)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def adamw_with_cosine(
    parameters: Iterable[nn.Parameter],
    lr: float,
    warmup_steps: int,
    num_steps: int,
) -> dict[str, Any]:
    """What a LightningModule's ``configure_optimizers`` returns: AdamW, its learning rate stepped with every batch."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, warmup_steps, num_steps)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def stop_when_done(module: LightningModule, num_steps: int) -> None:
    """End the run where ``num_steps`` batches are done."""
    if module.global_step >= num_steps:
        module.trainer.should_stop = True


def stop_if_finished(module: LightningModule, num_steps: int) -> None:
    """Before the first step: a finished run that is resumed takes no further step, and says so."""
    stop_when_done(module, num_steps)
    if module.global_step >= num_steps:
        rank_zero_warn(
            f"already finished: step {module.global_step} of {num_steps}, nothing is left to train; to go on, set "
            "model.init_args.num_steps higher"
        )


def tell_data_position(module: LightningModule) -> None:
    """Tell a data module whose order is a function of the step which step comes next."""
    datamodule = getattr(module.trainer, "datamodule", None)
    if datamodule is not None and hasattr(datamodule, "next_step"):
        datamodule.next_step = module.global_step


def val_set_name(module: LightningModule, index: int) -> str:
    """The name of validation set number ``index``: the data module's own, else ``set<index>``."""
    datamodule = getattr(module.trainer, "datamodule", None)
    names: list[str] | None = getattr(datamodule, "val_names", None)
    return names[index] if names else f"set{index}"
