"""Sums and means over kept places, and masks from lengths. What is masked leaks neither into value nor gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def masked(values: Tensor, keep: Tensor) -> Tensor:
    """``values`` with 0 where ``keep`` is False, by selection: ``values * keep`` would let NaN through.

    Args:
        values: any shape.
        keep: bool, broadcastable to ``values``.
    """
    return torch.where(keep, values, torch.zeros((), dtype=values.dtype, device=values.device))


def masked_sum(values: Tensor, keep: Tensor, dim: int | None = None) -> Tensor:
    """Sum of the kept ``values``, over ``dim`` or over everything; 0 (with a graph) where nothing is kept."""
    chosen = masked(values, keep)
    return chosen.sum() if dim is None else chosen.sum(dim)


def masked_mean(values: Tensor, keep: Tensor, dim: int | None = None) -> Tensor:
    """Mean of the kept ``values``, over ``dim`` or over everything; 0 (with a graph) where nothing is kept.

    Example: values [1, NaN, 3], keep [True, False, True] -> 2.
    """
    count = keep.expand_as(values)
    count = count.sum() if dim is None else count.sum(dim)
    return masked_sum(values, keep, dim) / count.clamp(min=1)


def lengths_to_keep(lengths: Tensor, max_length: int) -> Tensor:
    """[..., max_length] bool, True in the first ``lengths[...]`` places.

    Example: lengths [1, 3], max_length 3 -> [[True, False, False], [True, True, True]].
    """
    return torch.arange(max_length, device=lengths.device) < lengths.unsqueeze(-1)


def keep_finite(keep: Tensor, *values: Tensor) -> Tensor:
    """``keep`` without the places where any of ``values`` (same shape) is NaN or infinite.

    Takes non-finite sampler log-probs out of loss and divisor together.
    """
    for value in values:
        keep = keep & value.isfinite()
    return keep
