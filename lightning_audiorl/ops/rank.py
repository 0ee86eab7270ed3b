"""Whether two judges put samples in the same order."""

from __future__ import annotations

import torch
from torch import Tensor


def kendall_tau(first: Tensor, second: Tensor, keep: Tensor | None = None) -> Tensor:
    """Kendall's tau-b of two scores of the same samples: 1 in the same order, -1 in the opposite one.

    Of the pairs of samples that both scores tell apart, those in the same order less those in the opposite one, over
    the geometric mean of the numbers of pairs that each score tells apart. Pairs that one of them ties count in the
    mean of the other alone.

    Args:
        first, second: [..., G] scores.
        keep: [..., G] which samples count; None takes all.

    Returns:
        [...] float64; NaN where a score tells no two samples apart, and of fewer than two samples.

    Example:
        >>> kendall_tau(torch.tensor([0.1, 0.2, 0.9]), torch.tensor([1, 2, 3])).item()
        1.0
        >>> kendall_tau(torch.tensor([0.1, 0.1, 0.9]), torch.tensor([5, 5, 5])).item()
        nan
    """
    if keep is None:
        keep = torch.ones_like(first, dtype=torch.bool)
    both = keep.unsqueeze(-1) & keep.unsqueeze(-2)
    order_of_first = _order(first, both)
    order_of_second = _order(second, both)

    # Each pair stands twice in both sums, which the ratio does not see.
    agreeing = (order_of_first * order_of_second).sum((-2, -1))
    told_apart = order_of_first.abs().sum((-2, -1)) * order_of_second.abs().sum((-2, -1))
    # The root of a product of whole numbers below 2^53: 1 is met exactly.
    tau = agreeing / told_apart.sqrt()
    return torch.where(told_apart > 0, tau, torch.full_like(tau, torch.nan))


def _order(scores: Tensor, both: Tensor) -> Tensor:
    """[..., G, G] float64: 1 where the sample of the row has the higher score, -1 the lower, 0 on ties and between
    samples that do not count.
    """
    values = scores.double()
    higher = values.unsqueeze(-1) > values.unsqueeze(-2)
    lower = values.unsqueeze(-1) < values.unsqueeze(-2)
    order = higher.double() - lower.double()
    return torch.where(both, order, torch.zeros_like(order))
