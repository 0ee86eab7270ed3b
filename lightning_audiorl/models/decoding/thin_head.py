"""The head over a few rows: a product with as many columns as the vocabulary has tokens, computed piece by piece."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Rows of a weight whose product with some dozen states stays in the processor's cache.
_PIECE = 1024
_MANY = 4 * _PIECE
_MOST_STATES = 64


def thin_product(output: nn.Module, hidden: Tensor) -> Tensor:
    """``output(hidden)``, on a CPU in pieces of the vocabulary where ``hidden`` [rows, D] has few rows.

    A CPU's library lays the whole weight out anew for each product; in pieces it does so within its cache, and takes
    three quarters of the time. Each logit is the same sum, in the same order.
    """
    weight = _plain_weight(output)
    if weight is None or not _is_thin(weight, hidden):
        logits: Tensor = output(hidden)
        return logits

    logits = hidden.new_empty(len(hidden), len(weight))
    for start in range(0, len(weight), _PIECE):
        piece = weight[start : start + _PIECE]
        torch.mm(hidden, piece.t(), out=logits[:, start : start + _PIECE])
    return logits


def _plain_weight(output: nn.Module) -> Tensor | None:
    """The weight of a head that is a product by it and nothing else; None of any other."""
    # A subclass, hooks and whatever stands in place of `forward` do more than that.
    if type(output) is not nn.Linear or "forward" in vars(output) or output.bias is not None:
        return None
    return None if output._forward_hooks or output._forward_pre_hooks else output.weight


def _is_thin(weight: Tensor, hidden: Tensor) -> bool:
    """Whether pieces pay, and none but plain tensors of a CPU are in play."""
    if hidden.ndim != 2 or len(hidden) > _MOST_STATES or len(weight) < _MANY:
        return False
    of_cpu = hidden.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    kinds = {type(weight.data), type(hidden)}
    return of_cpu and kinds == {Tensor} and not torch.is_grad_enabled()
