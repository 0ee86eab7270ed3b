"""Settings that are numbers, and by which nothing could be trained or sampled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_audiorl.engine import Optim
from lightning_audiorl.rewards import Accuracy, RewardMix
from lightning_audiorl.types import Decoding
from tests.models.families import ToneCodec


@pytest.mark.fault(
    "Numbers that are none",
    "a temperature so small or large that float32 has no room for it (1e-39, 1e308)",
    "it is refused where it is set: every token would be drawn from NaN",
)
@pytest.mark.parametrize("temperature", [5e-324, 1e-39, 1e39, 1e308])
def test_a_temperature_that_float32_does_not_hold(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"Decoding\.temperature: want 0 .* or 1e-30 to 1e\+?30"):
        Decoding(temperature=temperature)
    for fine in (0, 1e-8, 1e8):
        assert Decoding(temperature=fine).temperature == fine


SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("polynomial", {"power": -1.0}),
    ("polynomial", {"power": float("nan")}),
    ("polynomial", {"lr_end": 1.0}),
    ("cosine_with_min_lr", {"min_lr": 1.0}),
    ("cosine_with_min_lr", {}),
    ("cosine_with_restarts", {"num_cycles": float("nan")}),
    ("cosine_with_restarts", {"nume_cycles": 2}),
    ("inverse_sqrt", {"timescale": 0}),
    ("inverse_sqrt", {"timescale": -3}),
    ("warmup_stable_decay", {}),
]


@pytest.mark.fault(
    "Settings and messages",
    "arguments of a schedule that raise the learning rate above lr, are NaN, missing, slips, or fail in the last step",
    "they are refused before the first step, naming Optim.schedule_args",
)
@pytest.mark.parametrize(("name", "arguments"), SCHEDULES)
def test_a_schedule_is_one_before_the_first_step(name: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Optim\.schedule_args"):
        Optim(lr=1e-5, schedule=name, schedule_args=arguments).build(
            [nn.Parameter(torch.ones(1))], 10
        )


def test_schedules_within_their_range_are_built() -> None:
    fine: list[tuple[Any, dict[str, Any] | None]] = [
        ("polynomial", {"power": 2.0}),
        ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
        ("cosine_with_restarts", {"num_cycles": 2}),
        ("inverse_sqrt", None),
        ("inverse_sqrt", {"timescale": 5}),
        ("warmup_stable_decay", {"num_decay_steps": 4}),
        ("constant_with_warmup", None),
    ]
    for name, arguments in fine:
        optim = Optim(lr=1e-5, schedule=name, schedule_args=arguments, warmup_steps=2)
        optim.build([nn.Parameter(torch.ones(1))], 10)


@pytest.mark.fault(
    "Settings and messages",
    "true or false for a number, one beta or three, a timeout of centuries, a codebook without codes",
    "refused where the object is made, with the setting's name",
)
def test_what_is_no_number_of_that_kind() -> None:
    for betas in (0.9, (0.9,), (0.9, 0.99, 0.999)):
        with pytest.raises(ValueError, match=r"Optim\.betas: want two numbers"):
            Optim(betas=betas)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Optim\.lr: want a finite number"):
        Optim(lr=True)
    with pytest.raises(ValueError, match=r"RewardMix\.timeout_s: want a finite number above 0 and"):
        RewardMix([Accuracy()], timeout_s=1e11)
    for cardinality in (0, -3, 1.5):
        with pytest.raises(ValueError, match=r"ToneCodec\.cardinality: want a whole number"):
            ToneCodec(cardinality)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ToneCodec\.decode: want codes in whole numbers"):
        ToneCodec().decode(torch.full((1, 4), 1.7), torch.tensor([4]))
    with pytest.raises(ValueError, match=r"ToneCodec\.encode: want .* of at most S"):
        ToneCodec().encode(torch.zeros(1, 640), torch.tensor([9999]))
