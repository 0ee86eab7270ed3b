from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.regression import kendall_rank_corrcoef

from lightning_audiorl import ops
from lightning_audiorl.ops.randomness import keyed_generator


def naive(first: list[float], second: list[float]) -> float:
    """By pairs, in Python's own numbers."""
    agreeing = 0
    apart_in_first = 0
    apart_in_second = 0
    for i, j in combinations(range(len(first)), 2):
        a = first[i] - first[j]
        b = second[i] - second[j]
        apart_in_first += a != 0
        apart_in_second += b != 0
        agreeing += (a * b > 0) - (a * b < 0)
    if not apart_in_first * apart_in_second:
        return math.nan
    return agreeing / math.sqrt(apart_in_first * apart_in_second)


def draws(key: str, num_groups: int, group_size: int, num_values: int) -> Tensor:
    generator = keyed_generator(key)
    return torch.randint(num_values, (num_groups, group_size), generator=generator).float()


def test_worked_by_hand() -> None:
    # Of six pairs five in the same order, one in the opposite one.
    same = ops.kendall_tau(torch.tensor([1.0, 2, 3, 4]), torch.tensor([1.0, 2, 4, 3]))
    assert same.item() == pytest.approx(4 / 6)

    # Two tie in the first: five pairs apart there, six in the second, all five in the same order.
    tied = ops.kendall_tau(torch.tensor([1.0, 1, 2, 3]), torch.tensor([1.0, 2, 3, 4]))
    assert tied.item() == pytest.approx(5 / math.sqrt(5 * 6))
    assert ops.kendall_tau(torch.tensor([1.0, 2]), torch.tensor([4.0, 3])).item() == -1.0


@pytest.mark.parametrize("num_values", [2, 4, 1000])
def test_as_a_naive_loop_and_torchmetrics_have_it(num_values: int) -> None:
    first = draws("first", 40, 8, num_values)
    second = draws("second", 40, 8, num_values)
    found = ops.kendall_tau(first, second)
    for i in range(40):
        expected = naive(first[i].tolist(), second[i].tolist())
        assert found[i].item() == pytest.approx(expected, nan_ok=True)
        if not math.isnan(expected):
            other = kendall_rank_corrcoef(first[i], second[i], variant="b")
            assert found[i].item() == pytest.approx(other.item(), abs=1e-5)


def test_as_scipy_has_it() -> None:
    stats = pytest.importorskip("scipy.stats")
    first = draws("first", 30, 6, 4)
    second = draws("second", 30, 6, 4)
    found = ops.kendall_tau(first, second)
    for i in range(30):
        expected = stats.kendalltau(first[i].numpy(), second[i].numpy()).statistic
        assert found[i].item() == pytest.approx(float(expected), nan_ok=True)


def test_samples_that_do_not_count_may_be_nan() -> None:
    first = torch.tensor([[1.0, math.nan, 2.0, 3.0], [1.0, 2.0, math.nan, math.nan]])
    second = torch.tensor([[1.0, 9.0, 3.0, 2.0], [2.0, 1.0, math.nan, 7.0]])
    keep = torch.tensor([[True, False, True, True], [True, True, False, False]])
    found = ops.kendall_tau(first, second, keep)
    assert found.tolist() == pytest.approx([1 / 3, -1.0])


def test_where_nothing_is_told_apart_there_is_no_agreement() -> None:
    constant = torch.ones(2, 3)
    varied = torch.tensor([[1.0, 2, 3], [1, 1, 1]])
    assert ops.kendall_tau(constant, varied).isnan().all()
    assert ops.kendall_tau(torch.ones(3, 1), torch.ones(3, 1)).isnan().all()
    one = torch.tensor([True, False, False])
    assert ops.kendall_tau(varied, varied, one.expand(2, 3)).isnan().all()
