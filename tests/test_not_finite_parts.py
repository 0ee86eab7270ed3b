"""The training of a part (codec, judge, Token2Text) ends before its network is lost to NaN."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_audiorl.codecs import CodecTraining, TinyCodec
from lightning_audiorl.data import Subset
from lightning_audiorl.judges import CtcTraining, MfccConv
from tests.codecs.test_training import SMALL
from tests.codecs.test_training import data as sounds
from tests.judges.fakes import RATE_HZ
from tests.judges.test_training import ToneData, Tones
from tests.token2text.test_training import make_batch, make_training


class Spoil(Callback):
    """After two steps turns the gradient, the loss or a weight into NaN."""

    def __init__(self, what: str) -> None:
        self.what = what

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if self.what == "gradient" and trainer.global_step == 2:
            trained = [p for p in pl_module.parameters() if p.grad is not None]
            trained[1].grad.flatten()[0] = math.inf

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        if trainer.global_step != 3:
            return
        if self.what == "loss":
            outputs["loss"] = torch.tensor(math.nan)
        if self.what == "weight":
            with torch.no_grad():
                next(p for p in pl_module.parameters() if p.requires_grad).flatten()[0] = math.nan


def part(kind: str, folder: Path) -> tuple[LightningModule, dict[str, Any]]:
    """A training of six steps, and its data."""
    where = str(folder / "part")
    if kind == "codec":
        return CodecTraining(TinyCodec(SMALL), 6, where, crop_s=0.4), {"datamodule": sounds()}
    if kind == "judge":
        network = MfccConv(characters="ab", width=8, dilations=(1,), dropout=0.0)
        tones = ToneData([Subset(Tones())], sample_rate_hz=RATE_HZ, batch_size=8)
        return CtcTraining(network, 6, folder=where), {"datamodule": tones}
    batches: Any = [make_batch(10 * i) for i in range(6)]
    return make_training(6, where), {"train_dataloaders": DataLoader(batches, batch_size=None)}


@pytest.mark.fault(
    "Numbers that are none",
    "a loss, gradient or weight that turns NaN while a codec, a judge or a Token2Text trains",
    "the training ends; the last checkpoint is finite and named, and no folder of the part is written",
)
@pytest.mark.parametrize("what", ["gradient", "loss", "weight"])
@pytest.mark.parametrize("kind", ["codec", "judge", "token2text"])
def test_a_part_is_not_lost(kind: str, what: str, tmp_path: Path) -> None:
    module, data = part(kind, tmp_path)
    saving = ModelCheckpoint(str(tmp_path), save_last=True, every_n_train_steps=1, save_top_k=1)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=6,
        max_epochs=9,
        logger=False,
        callbacks=[Spoil(what), saving],
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    with pytest.raises(ArithmeticError, match=r"(NaN or infinite, first in|loss is nan)") as caught:
        trainer.fit(module, **data)

    assert str(tmp_path / "last.ckpt") in str(caught.value)
    held = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert held["global_step"] == 2
    assert all(tensor.isfinite().all() for tensor in held["state_dict"].values())
    assert not (tmp_path / "part").exists()
