"""Sums and means over kept places, and masks from lengths. What is masked leaks neither into value nor gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def masked(values: Tensor, keep: Tensor) -> Tensor:
    """``values`` with 0 where ``keep`` is False, by selection: ``values * keep`` would let NaN through.

    Example:
        >>> masked(torch.tensor([1.0, float("nan"), 3.0]), torch.tensor([True, False, True]))
        tensor([1., 0., 3.])

    Args:
        values: any shape.
        keep: bool, broadcastable to ``values``.
    """
    zero = torch.zeros((), dtype=values.dtype, device=values.device)
    return torch.where(keep, values, zero)


def masked_sum(values: Tensor, keep: Tensor, dim: int | None = None) -> Tensor:
    """Sum of the kept ``values``, over ``dim`` or over everything; 0 (with a graph) where nothing is kept.

    Example:
        >>> masked_sum(torch.tensor([1.0, float("nan"), 3.0]), torch.tensor([True, False, True]))
        tensor(4.)
    """
    chosen = masked(values, keep)
    return chosen.sum() if dim is None else chosen.sum(dim)


def masked_mean(values: Tensor, keep: Tensor, dim: int | None = None) -> Tensor:
    """Mean of the kept ``values``, over ``dim`` or over everything; 0 (with a graph) where nothing is kept.

    Example:
        >>> masked_mean(torch.tensor([1.0, float("nan"), 3.0]), torch.tensor([True, False, True]))
        tensor(2.)
    """
    kept = keep.expand_as(values)
    count = kept.sum() if dim is None else kept.sum(dim)
    return masked_sum(values, keep, dim) / count.clamp(min=1)


def lengths_to_keep(lengths: Tensor, max_length: int) -> Tensor:
    """[..., max_length] bool, True in the first ``lengths[...]`` places.

    Example:
        >>> lengths_to_keep(torch.tensor([1, 3]), max_length=3)
        tensor([[ True, False, False],
                [ True,  True,  True]])
    """
    place = torch.arange(max_length, device=lengths.device)
    return place < lengths.unsqueeze(-1)


def keep_finite(keep: Tensor, *values: Tensor) -> Tensor:
    """``keep`` without the places where any of ``values`` (same shape) is NaN or infinite.

    Takes non-finite sampler log-probs out of loss and divisor together.

    Example:
        >>> keep_finite(torch.tensor([True, True, False]), torch.tensor([-0.5, -float("inf"), -1.0]))
        tensor([ True, False, False])
    """
    for value in values:
        keep = keep & value.isfinite()
    return keep
