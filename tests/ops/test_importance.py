from __future__ import annotations

import math

import pytest
import torch

from lightning_audiorl.ops import truncated_importance_weights
from tests.helpers import assert_close

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("cap", "expected"), [(2.0, [2, 0.5, 1, 1, 2]), (0.8, [0.8, 0.5, 0.8, 1, 0.8])]
)
def test_worked_numbers_and_nan_in_masked_places(cap, expected):
    log_probs = torch.tensor([[[math.log(3), math.log(0.5), 0.0, NAN, 1e4]]], requires_grad=True)
    sampler = torch.tensor([[[0.0, 0.0, 0.0, -INF, -1e4]]])
    keep = torch.tensor([[[True, True, True, False, True]]])
    weights = truncated_importance_weights(log_probs, sampler, keep, cap)
    assert not weights.requires_grad
    assert_close(weights, [[expected]])
    assert weights[~keep] == 1
    terms = (weights * log_probs.where(keep, 0)).sum()
    terms.backward()
    assert_close(log_probs.grad, weights.where(keep, 0))


def test_off_by_default():
    keep = torch.ones(1, 1, 1, dtype=torch.bool)
    assert truncated_importance_weights(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), keep) is None


def test_same_engine_weighs_exactly_one():
    log_probs = torch.tensor([[[-0.1, -7.3]]])
    weights = truncated_importance_weights(
        log_probs, log_probs.clone(), torch.ones(1, 1, 2, dtype=torch.bool), 2.0
    )
    assert_close(weights, [[[1, 1]]], "exact")


def test_bad_input():
    keep = torch.ones(1, 1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="cap must be positive"):
        truncated_importance_weights(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), keep, 0.0)
    with pytest.raises(ValueError, match=r"got \[1, 1, 2\], \[1, 1, 1\]"):
        truncated_importance_weights(torch.zeros(1, 1, 2), torch.zeros(1, 1, 1), keep, 2.0)
