"""Whether weights are numbers: found out by a sum of squares, which may overflow though they are."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_audiorl.finite import all_finite, first_not_finite


def test_squares_that_overflow_are_no_infinite_weights() -> None:
    assert all_finite([torch.full((8,), 3e38), torch.ones(3)])
    assert all_finite([torch.full((8,), 6e4, dtype=torch.float16)])
    assert all_finite([torch.full((8,), 1e300, dtype=torch.float64)])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_entry_that_is_no_number_is_found(value: float) -> None:
    lost = torch.ones(1000)
    lost[777] = value
    assert not all_finite([torch.zeros(4), lost])
    assert not all_finite([torch.full((4,), 3e38), lost])
    assert first_not_finite({"a": torch.full((4,), 3e38), "b": torch.zeros(0), "c": lost}) == 2
