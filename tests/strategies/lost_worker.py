"""Two ranks, one of which meets what is not finite; each writes what it was told. Run by test_not_finite_ranks.py."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from lightning_audiorl.algorithms import Optim
from lightning_audiorl.finite import NotFiniteError
from tests.algorithms.tiny import make_grpo
from tests.strategies.worker import Batches


class SpoilOneRank(Callback):
    """On rank 1 alone, before the second step: a weight, or every gradient from then on."""

    def __init__(self, what: str) -> None:
        self.what = what

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_rank != 1 or pl_module.rl_step != 1:
            return
        weight = list(pl_module.policy.trainable().values())[1]
        held = weight.to_local() if isinstance(weight, DTensor) else weight
        if self.what == "weight":
            with torch.no_grad():
                held.flatten()[0] = math.nan

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if self.what == "gradient" and trainer.global_rank == 1 and pl_module.rl_step >= 1:
            for weight in list(pl_module.policy.trainable().values())[1:2]:
                held = weight.grad.to_local() if isinstance(weight.grad, DTensor) else weight.grad
                held.flatten()[0] = math.nan


def main() -> None:
    strategy, out = sys.argv[1:]
    said: dict[str, str] = {}
    rank = 0
    for what in ("gradient", "weight"):
        module = make_grpo(num_steps=8, optim=Optim(lr=1e-3), micro_batch_size=1)
        trainer = Trainer(
            accelerator="cpu",
            devices=2,
            strategy=strategy,
            max_epochs=1,
            logger=False,
            callbacks=[SpoilOneRank(what)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(module, DataLoader(Batches(8, spoil=False), batch_size=None))
        except NotFiniteError as error:
            said[what] = str(error)
        rank = trainer.global_rank
    Path(f"{out}.{rank}").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
