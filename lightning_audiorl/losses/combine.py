"""Several losses in one run: their gradients are taken out of the parameters, measured, weighed and added.

The gradients are complete when they come here: summed over micro-batches and ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_audiorl.checks import check_number
from lightning_audiorl.ops import Schedule

Gradients = list[Tensor | None]


def take_gradients(parameters: Sequence[nn.Parameter]) -> Gradients:
    """The gradients, which leave the parameters.

    Example:
        >>> weight = nn.Parameter(torch.ones(2))
        >>> weight.sum().backward()
        >>> take_gradients([weight])
        [tensor([1., 1.])]
        >>> weight.grad is None
        True
    """
    taken = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    return taken


def inner_product(one: Gradients, other: Gradients) -> float:
    """Sum of the products of all entries, whole or sharded (then over all ranks); None is 0.

    Example:
        >>> inner_product([torch.tensor([1.0, 2.0]), None], [torch.tensor([3.0, 4.0]), torch.ones(1)])
        11.0
    """
    # In float64: over the entries of a large model float32 loses digits.
    whole = 0.0
    sharded = torch.zeros((), dtype=torch.float64)
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

    # Each rank holds another part of a sharded gradient, and the same of a whole one.
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
    """Norms and cosine of two gradients.

    Example:
        >>> compare([torch.tensor([3.0, 4.0])], [torch.tensor([3.0, 4.0])])
        Comparison(first=5.0, second=5.0, cosine=1.0)
    """
    one = math.sqrt(inner_product(first, first))
    other = math.sqrt(inner_product(second, second))
    product = inner_product(first, second)
    return Comparison(one, other, product / (one * other) if one * other else math.nan)


def put_sum(
    parameters: Sequence[nn.Parameter], first: Gradients, second: Gradients, weight: float
) -> None:
    """Each parameter's gradient becomes ``first + weight * second``; with weight 0 the second is not read."""
    for parameter, a, b in zip(parameters, first, second, strict=True):
        if b is None or weight == 0:
            parameter.grad = a
        elif a is None:
            parameter.grad = b * weight
        else:
            parameter.grad = a.add(b, alpha=weight)


@dataclass(frozen=True)
class WeightedGradients:
    """The first loss's gradient, plus w times that of each further loss.

    Args:
        weight: w, fixed or over the RL steps.
        normalise: w is a ratio of norms: a further gradient is scaled to ``w * |first|``.
    """

    weight: float | Schedule = 1.0
    normalise: bool = False

    def __post_init__(self) -> None:
        # A schedule has checked its own values.
        if not isinstance(self.weight, Schedule):
            check_number("WeightedGradients.weight", self.weight, at_least=0)

    def combine(
        self,
        names: Sequence[str],
        parameters: Sequence[nn.Parameter],
        gradients: Sequence[Gradients],
        rl_step: int,
        num_steps: int,
    ) -> dict[str, float]:
        """Put the weighted sum into the parameters.

        A further gradient that is not finite is left out, and counted in ``<name>/skipped``.

        Args:
            names: of the losses.
            parameters: those that train.
            gradients: one of `take_gradients` per loss.
            rl_step, num_steps: for the schedule of the weight.

        Returns:
            ``grad_norm/<name>`` of each; of the further ones ``grad_cosine`` to the first, ``<name>/weight``, and
            ``<name>_share``, |w g| / (|first| + |w g|).
        """
        schedule = self.weight if isinstance(self.weight, Schedule) else Schedule(self.weight)
        weight = schedule.at(rl_step, num_steps)
        first, *others = gradients
        metrics: dict[str, float] = {}
        total = first

        for name, gradient in zip(names[1:], others, strict=True):
            norms = compare(first, gradient)
            factor = weight
            if self.normalise:
                factor = 0.0
                if norms.second:
                    factor = weight * norms.first / norms.second

            finite = math.isfinite(norms.second) and math.isfinite(factor)
            # The sum so far stands in the parameters; the next loss is added to it, and always measured by the first.
            put_sum(parameters, total, gradient, factor if finite else 0.0)
            total = [parameter.grad for parameter in parameters]

            ours = factor * norms.second if finite else 0.0
            cosine_key = "grad_cosine" if len(others) == 1 else f"grad_cosine/{name}"
            metrics |= {
                f"grad_norm/{names[0]}": norms.first,
                f"grad_norm/{name}": norms.second,
                cosine_key: norms.cosine,
                f"{name}_share": ours / (norms.first + ours) if norms.first + ours else 0.0,
                f"{name}/weight": factor,
                f"{name}/skipped": float(not finite),
            }
        return metrics
