from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from transformers import get_scheduler

from lightning_audiorl.algorithms import Optim
from lightning_audiorl.engine.optim import ScheduleName
from tests.algorithms.tiny import fit, make_grpo
from tests.command import run, tiny_config, write_manifest

SCHEDULES = {
    "constant": (Optim(lr=0.1), [0.1] * 4),
    "warmup": (Optim(lr=0.1, warmup_steps=2), [0.05, 0.1, 0.1, 0.1]),
    "linear": (Optim(lr=0.1, schedule="linear", warmup_steps=1), [0.1, 0.1, 0.1 * 2 / 3, 0.1 / 3]),
    "cosine": (
        Optim(lr=0.1, schedule="cosine", min_lr_ratio=0.2),
        [0.1 * (0.2 + 0.4 * (1 + math.cos(math.pi * i / 4))) for i in range(4)],
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_learning_rate_by_step(name: str) -> None:
    optim, expected = SCHEDULES[name]
    factor = optim.factor(4)
    assert [optim.lr * factor(step) for step in range(4)] == pytest.approx(expected)


def test_decay_ends_at_the_floor_and_stays_there() -> None:
    for schedule in ("linear", "cosine"):
        factor = Optim(schedule=schedule, min_lr_ratio=0.1).factor(10)  # type: ignore[arg-type]
        assert [factor(10), factor(50)] == pytest.approx([0.1, 0.1])


def test_schedule_counts_rl_steps() -> None:
    """Whatever K: the learning rate that the optimiser really has at each inner update, and the one that is logged."""
    optim, expected = SCHEDULES["linear"]
    recorder = fit(make_grpo(num_steps=4, num_updates=3, optim=optim))
    assert recorder.lrs == pytest.approx([lr for lr in expected for _ in range(3)])
    assert [m["lr"] for m in recorder.metrics] == pytest.approx(expected)


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"warmup_steps": -1}, {"max_grad_norm": -1.0}])
def test_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"Optim.{next(iter(settings))}: want "):
        Optim(**settings)


def test_any_torch_optimizer_with_any_torch_schedule() -> None:
    """Called with the parameters, and with the optimiser; the steps are those of the RL run."""
    optim = Optim(
        optimizer=partial(torch.optim.SGD, lr=0.5, momentum=0.9),
        schedule=partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.1),
    )
    recorder = fit(make_grpo(num_steps=4, optim=optim))
    assert recorder.lrs == pytest.approx([0.5, 0.5, 0.05, 0.05])
    assert [m["lr"] for m in recorder.metrics] == pytest.approx(recorder.lrs)


@pytest.mark.parametrize("name", [name for name in get_args(ScheduleName) if name not in SCHEDULES])
def test_schedules_of_transformers(name: Any) -> None:
    """By name: the same learning rates as transformers' own function gives."""
    needs = {
        "cosine_with_min_lr": {"min_lr": 0.01},
        "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    }
    further = needs.get(name, {"num_decay_steps": 3} if name == "warmup_stable_decay" else None)
    weight = [torch.nn.Parameter(torch.zeros(1))]
    optimizer, schedule = Optim(lr=0.1, schedule=name, warmup_steps=2, schedule_args=further).build(
        weight, 8
    )
    theirs = get_scheduler(name, torch.optim.AdamW(weight, lr=0.1), 2, 8, further)
    for _ in range(8):
        assert schedule.get_last_lr() == theirs.get_last_lr()
        optimizer.step()
        schedule.step()
        theirs.step()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"optimizer": torch.optim.SGD, "lr": 0.1}, "lr"),
        ({"optimizer": torch.optim.SGD, "betas": (0.9, 0.95)}, "betas"),
        (
            {"schedule": partial(torch.optim.lr_scheduler.StepLR, step_size=2), "warmup_steps": 2},
            "warmup_steps",
        ),
        ({"schedule": "polynomial", "min_lr_ratio": 0.1}, "min_lr_ratio"),
        ({"schedule": "linear", "schedule_args": {"power": 2}}, "schedule_args"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_setting_that_nothing_reads_is_refused(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"Optim.{name} is not read here"):
        Optim(**settings)


def test_a_schedule_that_waits_for_a_metric_is_refused() -> None:
    weight = [torch.nn.Parameter(torch.zeros(1))]
    with pytest.raises(ValueError, match="ReduceLROnPlateau waits for a metric"):
        Optim(schedule=torch.optim.lr_scheduler.ReduceLROnPlateau).build(weight, 8)  # type: ignore[arg-type]


def plain(value: Any) -> bool:
    """Whether YAML or JSON could hold it."""
    if isinstance(value, dict):
        return all(plain(item) for item in value.values())
    if isinstance(value, list):
        return all(plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def test_both_by_class_path_in_yaml(tmp_path: Path) -> None:
    """Short or whole; a run resumes with them, and its saved settings are plain."""
    write_manifest(tmp_path)
    sgd = {"class_path": "SGD", "init_args": {"lr": 0.25, "momentum": 0.9}}
    steps = {"class_path": "StepLR", "init_args": {"step_size": 1, "gamma": 0.5}}
    config = tiny_config(
        tmp_path, optim={"optimizer": sgd, "schedule": steps, "max_grad_norm": 0.5}, num_steps=2
    )
    module = run(tmp_path, config).model
    assert isinstance(module.optimizers().optimizer, torch.optim.SGD)
    assert module.optimizers().param_groups[0]["momentum"] == 0.9
    assert module.step_metrics["lr"] == 0.125

    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["init_args"][
        "optim"
    ]
    assert plain(saved)
    assert saved["optimizer"]["class_path"] == "torch.optim.SGD"
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == 0.0625

    longer = config | {
        "model": config["model"] | {"init_args": config["model"]["init_args"] | {"num_steps": 3}}
    }
    resumed = run(tmp_path, longer, "--ckpt_path", "last").model
    assert resumed.step_metrics["lr"] == 0.0625
