from __future__ import annotations

import statistics

import pytest
import torch
from trl.trainer.utils import nanstd

from lightning_audiorl.ops import group_advantages, soft_overlong_penalty
from tests.helpers import assert_close

NAN = float("nan")
KINDS = ["normalised", "centred", "leave_one_out"]


def everyone(rewards: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(rewards, dtype=torch.bool)


def test_worked_numbers():
    rewards = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
    assert_close(
        group_advantages(rewards, everyone(rewards), "centred").values,
        [[-1, 0, 1], [-1, -1, 2]],
        "float64",
    )
    expected = [[-1.5, 0, 1.5], [-1.5, -1.5, 3]]
    assert_close(
        group_advantages(rewards, everyone(rewards), "leave_one_out").values, expected, "float64"
    )
    std = 3**0.5
    expected = [
        [-1 / 1.0001, 0, 1 / 1.0001],
        [-1 / (std + 1e-4), -1 / (std + 1e-4), 2 / (std + 1e-4)],
    ]
    assert_close(group_advantages(rewards, everyone(rewards)).values, expected, "float64")


@pytest.mark.parametrize("kind", KINDS)
def test_naive_loop(kind):
    generator = torch.Generator().manual_seed(1)
    rewards = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    valid = torch.rand(6, 5, generator=generator) > 0.3
    valid[0] = torch.tensor([True, False, False, False, False])
    valid[1] = False
    result = group_advantages(rewards.masked_fill(~valid, NAN), valid, kind)
    dropped = 0
    for b in range(6):
        group = {g: rewards[b, g].item() for g in range(5) if valid[b, g]}
        dropped += len(group) < 2
        for g in range(5):
            if len(group) < 2 or g not in group:
                assert result.values[b, g] == 0
                assert not result.used[b, g]
                continue
            assert result.used[b, g]
            mean, std = statistics.mean(group.values()), statistics.stdev(group.values())
            others = statistics.mean(value for index, value in group.items() if index != g)
            deviation = group[g] - mean
            expected = {
                "normalised": deviation / (std + 1e-4),
                "centred": deviation,
                "leave_one_out": group[g] - others,
            }[kind]
            assert_close(result.values[b, g], expected, "float64")
    assert result.num_dropped == dropped == 2
    assert result.num_zero_variance == 0


def test_parity_with_trl_statistics():
    """TRL marks invalid rewards by NaN and calls its own nanmean and nanstd."""
    rewards = torch.tensor([[0.1, 0.7, NAN, 0.4], [1.0, 0.0, 0.0, NAN]])
    expected = (rewards - rewards.nanmean(1, keepdim=True)) / (
        nanstd(rewards, dim=1, keepdim=True) + 1e-4
    )
    result = group_advantages(rewards, ~rewards.isnan())
    assert_close(result.values, expected.nan_to_num(0.0), "float32")


@pytest.mark.parametrize("kind", KINDS)
def test_equal_rewards_are_exactly_zero_and_counted(kind):
    rewards = torch.tensor([[0.1, 0.1, 0.1], [0.1, 0.2, 0.3], [0.7, 0.7, NAN], [0.7, NAN, NAN]])
    result = group_advantages(rewards, ~rewards.isnan(), kind)
    assert_close(result.values[[0, 2]], torch.zeros(2, 3), "exact")
    assert (result.num_zero_variance, result.num_dropped) == (2, 1)
    assert result.used.tolist() == [[True] * 3, [True] * 3, [True, True, False], [False] * 3]
    dropping = group_advantages(rewards, ~rewards.isnan(), kind, drop_zero_variance=True)
    assert dropping.used.tolist() == [[False] * 3, [True] * 3, [False] * 3, [False] * 3]
    assert (dropping.num_zero_variance, dropping.num_dropped) == (2, 1)
    assert_close(dropping.values, result.values, "exact")


def test_equal_rewards_leave_no_rounding_behind():
    rewards = torch.full((1, 7), 0.1)
    assert (rewards - rewards.mean()).abs().max() > 0, (
        "the mean of equal rewards must round for this to test anything"
    )
    assert_close(group_advantages(rewards, everyone(rewards)).values, torch.zeros(1, 7), "exact")


def test_bad_input():
    rewards = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="kind must be one of"):
        group_advantages(rewards, everyone(rewards), "mean")
    with pytest.raises(ValueError, match=r"got \[2, 2\], \[2\]"):
        group_advantages(rewards, everyone(rewards[0]))
    rewards[1, 0] = -float("inf")
    with pytest.raises(ValueError, match=r"\[1, 0\]; mark such samples invalid"):
        group_advantages(rewards, everyone(rewards))


def test_soft_overlong_penalty():
    lengths = torch.tensor([[0, 6, 7], [8, 10, 99]])
    assert_close(soft_overlong_penalty(lengths, 10, 4), [[0, 0, -0.25], [-0.5, -1, -1]], "exact")
    for buffer in (0, 11):
        with pytest.raises(ValueError, match="buffer"):
            soft_overlong_penalty(lengths, 10, buffer)
