from __future__ import annotations

import math
from typing import Any

import pytest

from lightning_audiorl.algorithms import Optim
from tests.algorithms.tiny import fit, make_grpo

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
    with pytest.raises(ValueError, match="Optim: want lr > 0"):
        Optim(**settings)
