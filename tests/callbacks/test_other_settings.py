"""A run that goes on with other settings than those that its checkpoint was written with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_audiorl.callbacks import EarlyStop, RLCheckpoint
from lightning_audiorl.engine.optim import Optim
from tests.callbacks import runs


@pytest.mark.fault(
    "Runs that stop and go on",
    "resumed with another learning rate, weight decay or betas",
    "the optimizer takes those of the settings, and a line says so",
)
@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"lr": 1e-6}, "lr 1e-06"),
        ({"weight_decay": 0.5}, "weight_decay 0.5"),
        ({"betas": (0.5, 0.6)}, "betas"),
        ({"schedule": "linear", "lr": 1e-2}, "lr 0.01"),
    ],
)
def test_the_optimizer_follows_its_settings(
    root: str, tmp_path: Path, wanted: dict[str, Any], said: str
) -> None:
    first = runs.sft(num_steps=1, optim=Optim(lr=1e-3))
    runs.fit(tmp_path, root, RLCheckpoint(), module=first, limit_val_batches=0)
    last = str(tmp_path / "checkpoints" / "last.ckpt")

    optim = Optim(**{"lr": 1e-3} | wanted)
    longer = runs.sft(num_steps=4, optim=optim)
    with pytest.warns(UserWarning, match=f"other settings than the checkpoint's: .*{said}"):
        runs.fit(tmp_path, root, RLCheckpoint(), module=longer, limit_val_batches=0, ckpt_path=last)

    checkpoint = torch.load(last, weights_only=True)
    group = checkpoint["optimizer_states"][0]["param_groups"][0]
    assert group["initial_lr"] == optim.lr
    assert group["weight_decay"] == optim.weight_decay
    assert tuple(group["betas"]) == optim.betas
    assert longer.step_metrics["lr"] == pytest.approx(optim.lr * optim.factor(4)(3))


@pytest.mark.fault(
    "Runs that stop and go on",
    "early stopping in a run that is evaluated at its end alone",
    "a line says that it can end nothing, and the setting to change",
)
def test_early_stop_wants_evaluations_in_between(
    root: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop = EarlyStop("val/digits/wer")
    runs.fit(tmp_path, root, stop, module=runs.sft(num_steps=2))
    assert "no evaluation comes before RL step 2, the last" in caplog.text

    caplog.clear()
    runs.fit(tmp_path, root, stop, module=runs.sft(num_steps=2), val_check_interval=1)
    assert "EarlyStop can end nothing" not in caplog.text
