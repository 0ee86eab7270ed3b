from __future__ import annotations

import pytest
import torch

from lightning_audiorl.ops import keep_finite, lengths_to_keep, masked, masked_mean, masked_sum
from tests.helpers import assert_close

NAN = float("nan")


def test_worked_numbers():
    values = torch.tensor([[1.0, NAN, 3.0], [NAN, NAN, NAN]])
    keep = torch.tensor([[True, False, True], [False, False, False]])
    assert_close(masked(values, keep), [[1, 0, 3], [0, 0, 0]], "exact")
    assert_close(masked_sum(values, keep), 4.0, "exact")
    assert_close(masked_mean(values, keep), 2.0, "exact")
    assert_close(masked_sum(values, keep, dim=-1), [4, 0], "exact")
    assert_close(masked_mean(values, keep, dim=-1), [2, 0], "exact")
    assert_close(masked_mean(values, keep, dim=0), [1, 0, 3], "exact")


@pytest.mark.parametrize("function", [masked, masked_sum, masked_mean])
def test_nan_leaks_into_no_gradient(function):
    values = torch.tensor([1.0, NAN, 3.0, float("inf")], requires_grad=True)
    function(values, torch.tensor([True, False, True, False])).sum().backward()
    assert values.grad.isfinite().all()
    assert_close(values.grad[[1, 3]], [0, 0], "exact")
    assert values.grad[0] > 0


def test_mean_broadcasts_its_mask():
    assert_close(masked_mean(torch.ones(2, 3), torch.tensor([[True], [False]])), 1.0, "exact")


@pytest.mark.parametrize("function", [masked_sum, masked_mean])
def test_empty_mask_still_carries_a_graph(function):
    values = torch.ones(3, requires_grad=True)
    result = function(values, torch.zeros(3, dtype=torch.bool))
    assert result.item() == 0
    result.backward()
    assert_close(values.grad, torch.zeros(3), "exact")


def test_lengths_to_keep():
    assert lengths_to_keep(torch.tensor([[1, 3], [0, 2]]), 3).tolist() == [
        [[True, False, False], [True, True, True]],
        [[False, False, False], [True, True, False]],
    ]


def test_keep_finite():
    keep = torch.tensor([True, True, False, True])
    first = torch.tensor([0.0, -float("inf"), 0.0, 0.0])
    second = torch.tensor([0.0, 0.0, 0.0, NAN])
    assert keep_finite(keep, first, second).tolist() == [True, False, False, False]
