"""GRPO on a built mix with refills, in as many processes as asked for; rank 0 writes which rows each rank trained on.

python -m tests.strategies.rl_data_worker 2 <folder with train.jsonl and dev.jsonl> <out.json>
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer

from lightning_audiorl.algorithms import Optim
from lightning_audiorl.data import AsrRLDataModule, RLSubset
from lightning_audiorl.data.mix.selection import Everything, RandomControl
from lightning_audiorl.types import Hypothesis
from tests.algorithms.tiny import SHORT, Judge, make_grpo, make_policy

NUM_STEPS = 3


class OddRows(Judge):
    """Sees no difference between the samples of rows with an even number."""

    def score(self, hypotheses: Any) -> list[float]:
        return [self._score(hypothesis) for hypothesis in hypotheses]

    def _score(self, said: Hypothesis) -> float:
        return float(len(said.text)) if int(said.row.text.split()[-1]) % 2 else 0.0


class RowsSeen(Callback):
    """Ids that each rank had in its batch, and that it trained on after the refills; figures of each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        own = {"batch": list(batch.ids), "trained": list(pl_module.last_step.batch.ids)}
        ranks: list[Any] = [own]
        if trainer.world_size > 1:
            ranks = [None] * trainer.world_size
            torch.distributed.all_gather_object(ranks, own)
        refill = {k: v for k, v in pl_module.step_metrics.items() if k.startswith("refill/")}
        self.steps.append({"ranks": ranks, "refill": refill})


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    devices, folder, out = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    data = AsrRLDataModule(
        {
            "some": RLSubset(str(folder / "train.jsonl"), RandomControl(8), share=0.5),
            "all": RLSubset(str(folder / "train.jsonl"), Everything(), share=0.5),
        },
        cache_dir=str(folder / "mixes"),
        content_cache=str(folder / "content.sqlite"),
        forbid={"dev": str(folder / "dev.jsonl")},
        batch_size=4,
        sample_rate_hz=16000,
    )
    optim = Optim(lr=1e-3)
    module = make_grpo(
        make_policy(), OddRows(), num_steps=NUM_STEPS, max_refills=2, decoding=SHORT, optim=optim
    )
    seen = RowsSeen()
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="phase_ddp" if devices > 1 else "auto",
        max_epochs=1,
        logger=False,
        callbacks=[seen],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        built = sorted(path.name for path in data.folder.iterdir())
        out.write_text(
            json.dumps({"steps": seen.steps, "built": built, "folder": data.folder.name})
        )


if __name__ == "__main__":
    main()
