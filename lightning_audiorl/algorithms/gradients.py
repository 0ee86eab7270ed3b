"""Gradients of two losses side by side: taken out of the parameters, measured, and put together again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

Gradients = list[Tensor | None]


def take_gradients(parameters: Sequence[nn.Parameter]) -> Gradients:
    """The gradients, which leave the parameters."""
    taken = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    return taken


def inner_product(one: Gradients, other: Gradients) -> float:
    """Sum of the products of all entries, whole or sharded (then over all ranks); None is 0."""
    whole, sharded = 0.0, torch.zeros((), dtype=torch.float64)
    any_sharded = False
    for a, b in zip(one, other, strict=True):
        if a is None or b is None:
            continue
        if isinstance(a, DTensor) and isinstance(b, DTensor):
            any_sharded = True
            product = (a.to_local().double() * b.to_local().double()).sum()
            sharded = sharded.to(product.device) + product
        else:
            whole += float((a.double() * b.double()).sum())
    if any_sharded:
        torch.distributed.all_reduce(sharded)
    return whole + float(sharded)


@dataclass(frozen=True)
class Comparison:
    """Two gradients of the same parameters.

    Args:
        first, second: their norms.
        cosine: between them; NaN where one is 0.
    """

    first: float
    second: float
    cosine: float


def compare(first: Gradients, second: Gradients) -> Comparison:
    """Norms and cosine; the gradients are complete, summed over ranks where these hold whole tensors."""
    one, other = (math.sqrt(inner_product(each, each)) for each in (first, second))
    return Comparison(one, other, inner_product(first, second) / (one * other) if one * other else math.nan)


def put_sum(parameters: Sequence[nn.Parameter], first: Gradients, second: Gradients, weight: float) -> None:
    """Each parameter's gradient becomes ``first + weight * second``; with weight 0 the second is not read."""
    for parameter, a, b in zip(parameters, first, second, strict=True):
        if b is None or weight == 0:
            parameter.grad = a
        else:
            parameter.grad = b * weight if a is None else a.add(b, alpha=weight)
