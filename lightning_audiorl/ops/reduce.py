"""From per-token terms to one loss, the same whichever way the step is cut into micro-batches and ranks.

A step's loss is ``step_loss(sum of reduce_terms over micro-batches, sum of loss_divisor over micro-batches)``; groups
stay whole. Each micro-batch may go backward by itself with the step's divisor.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from lightning_audiorl.ops.masks import masked, masked_mean

Reduction = Literal["sample_mean", "token_mean", "fixed_length", "group_mean"]


def loss_divisor(
    keep: Tensor, used: Tensor, reduction: Reduction, max_length: int | None = None
) -> Tensor:
    """What the sum of `reduce_terms` over the whole step is divided by: a 0-d int64 count, to be summed over
    micro-batches and ranks.

    Number of used samples (``sample_mean``), of used tokens (``token_mean``), used samples times ``max_length``
    (``fixed_length``), or groups with a used sample (``group_mean``).

    Example:
        >>> import torch
        >>> keep = torch.tensor([[[True, True, False], [True, True, True]]])
        >>> used = torch.tensor([[True, True]])
        >>> loss_divisor(keep, used, "sample_mean"), loss_divisor(keep, used, "token_mean")
        (tensor(2), tensor(5))

    Args:
        keep: [B, G, T] bool.
        used: [B, G] bool.
        reduction: see `reduce_terms`.
        max_length: longest completion in tokens, for ``fixed_length``.

    Raises:
        ValueError: for an unknown reduction, shapes that do not fit, or ``fixed_length`` without ``max_length``.
    """
    _check(keep, used, reduction)
    if reduction == "sample_mean":
        return used.sum()
    if reduction == "token_mean":
        return (keep & used.unsqueeze(-1)).sum()
    if reduction == "group_mean":
        return used.any(-1).sum()
    if max_length is None or max_length < 1:
        raise ValueError(
            f"loss_divisor: reduction fixed_length needs max_length >= 1, got {max_length}"
        )
    return used.sum() * max_length


def reduce_terms(terms: Tensor, keep: Tensor, used: Tensor, reduction: Reduction) -> Tensor:
    """Sum of a micro-batch's terms before division, 0-d; 0 with a graph when nothing is used.

    - ``sample_mean``: mean over a sample's tokens, summed over samples (GRPO, arXiv 2402.03300).
    - ``token_mean``: summed over tokens (DAPO, arXiv 2503.14476).
    - ``fixed_length``: summed over tokens, to be divided by a constant length (Dr. GRPO, arXiv 2503.20783).
    - ``group_mean``: mean over a sample's tokens, mean over the group's used samples, summed over groups.

    Example:
        >>> import torch
        >>> terms = torch.tensor([[[1.0, 3.0, 0.0], [1.0, 1.0, 4.0]]])
        >>> keep = torch.tensor([[[True, True, False], [True, True, True]]])
        >>> used = torch.tensor([[True, True]])
        >>> reduce_terms(terms, keep, used, "sample_mean"), reduce_terms(terms, keep, used, "token_mean")
        (tensor(4.), tensor(10.))

    Args:
        terms: [B, G, T] to be maximised; anything where masked or unused.
        keep: [B, G, T] bool.
        used: [B, G] bool.
        reduction: see above.

    Raises:
        ValueError: for an unknown reduction or shapes that do not fit.
    """
    _check(keep, used, reduction)
    if terms.shape != keep.shape:
        raise ValueError(
            f"reduce_terms: terms {list(terms.shape)} and keep {list(keep.shape)} differ"
        )

    mask = keep & used.unsqueeze(-1)
    if reduction in ("token_mean", "fixed_length"):
        return masked(terms, mask).sum()

    per_sample = masked_mean(terms, mask, dim=-1)
    if reduction == "group_mean":
        return masked_mean(per_sample, used, dim=-1).sum()
    return per_sample.sum()


def step_loss(total: Tensor, divisor: Tensor) -> Tensor:
    """The loss to be minimised: -total / divisor; 0 with a graph for an empty step.

    Example:
        >>> import torch
        >>> step_loss(torch.tensor(4.0), torch.tensor(2))
        tensor(-2.)

    Args:
        total: 0-d, from `reduce_terms`.
        divisor: 0-d, `loss_divisor` of the whole step, not of this micro-batch.
    """
    return -total / divisor.clamp(min=1)


def kl_penalised(terms: Tensor, kl: Tensor, beta: float) -> Tensor:
    """``terms - beta * kl``, [B, G, T]: the penalty enters per token and shares the objective's reduction.

    Example:
        >>> import torch
        >>> kl_penalised(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[0.5, 0.0]]]), beta=0.1)
        tensor([[[0.9500, 2.0000]]])
    """
    if terms.shape != kl.shape:
        raise ValueError(f"kl_penalised: terms {list(terms.shape)} and kl {list(kl.shape)} differ")
    # Without a penalty an infinite KL must not become NaN.
    return terms if beta == 0 else terms - beta * kl


def _check(keep: Tensor, used: Tensor, reduction: str) -> None:
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be one of {get_args(Reduction)}, got {reduction!r}")
    if keep.ndim != 3 or used.shape != keep.shape[:2]:
        raise ValueError(
            f"expected keep [B, G, T] and used [B, G], got {list(keep.shape)}, {list(used.shape)}"
        )
