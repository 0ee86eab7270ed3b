"""Trainer settings that count optimizer steps or epochs are refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint

from tests.algorithms.tiny import make_grpo
from tests.command import run, tiny_config, write_manifest

STEPS = r"use model.init_args.num_steps, the number of RL steps instead"
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_steps": 4}, rf"trainer.max_steps: 4: counts optimizer steps; {STEPS}"),
    ({"min_steps": 5}, rf"trainer.min_steps: 5: counts optimizer steps; {STEPS}"),
    ({"min_epochs": 1}, rf"trainer.min_epochs: 1: .*{STEPS}"),
    ({"max_epochs": 0}, rf"trainer.max_epochs: 0: .*{STEPS}"),
    ({"limit_train_batches": 2}, rf"trainer.limit_train_batches: 2: .*{STEPS}"),
    ({"overfit_batches": 2}, r"trainer.overfit_batches: 2: .*use a train manifest"),
    ({"check_val_every_n_epoch": 2}, r"check_val_every_n_epoch: 2: .*val_check_interval"),
    ({"val_check_interval": 0.5}, r"val_check_interval: 0.5: .*whole number of RL steps"),
    ({"accumulate_grad_batches": 2}, r"accumulate_grad_batches: 2: .*micro_batch_size"),
    ({"gradient_clip_val": 1.0}, r"gradient_clip_val: 1.0: .*optim.max_grad_norm"),
    (
        {"callbacks": [ModelCheckpoint(every_n_train_steps=2)]},
        r"every_n_train_steps counts optimizer steps.*use checkpoint.every_n_steps",
    ),
    (
        {"callbacks": [GradientAccumulationScheduler({0: 2})]},
        r"GradientAccumulationScheduler does not fit an RL step; use .*micro_batch_size",
    ),
]


@pytest.mark.fault(
    "Settings and messages",
    "a Trainer setting or callback that counts optimizer steps or epochs",
    "it is refused before anything starts, with the setting to use instead",
)
@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_counts_something_else_is_refused(settings: dict[str, Any], message: str) -> None:
    module = make_grpo(num_steps=2)
    settings = {"max_epochs": 1, "accelerator": "cpu", "logger": False, **settings}
    module.trainer = Trainer(devices=1, enable_checkpointing="callbacks" in settings, **settings)
    with pytest.raises(ValueError, match=message):
        module.setup("fit")


def test_what_is_usual_is_not_refused() -> None:
    settings: list[dict[str, Any]] = [
        {"max_epochs": 1, "callbacks": [ModelCheckpoint()]},
        {"max_epochs": -1, "max_time": "00:01:00:00", "val_check_interval": 2},
        {"max_epochs": 1, "check_val_every_n_epoch": None, "val_check_interval": "00:00:10:00"},
        {"fast_dev_run": True},
    ]
    for given in settings:
        module = make_grpo(num_steps=2)
        module.trainer = Trainer(accelerator="cpu", devices=1, logger=False, **given)
        module.setup("fit")


@pytest.mark.parametrize("setting", ["gradient_clip_val", "max_epochs"])
def test_the_command_line_names_the_setting_too(tmp_path: Path, setting: str) -> None:
    """Lightning's own check of gradients comes first otherwise; epochs are none where the data have no end."""
    write_manifest(tmp_path)
    settings = tiny_config(tmp_path, "SFT")
    settings["trainer"][setting] = 3
    with pytest.raises(ValueError, match=rf"trainer.{setting}: 3.*: .*; use model.init_args"):
        run(tmp_path, settings)
    assert not list((tmp_path / "run").rglob("*.ckpt"))
