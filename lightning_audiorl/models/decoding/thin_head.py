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
    if not _is_thin(output, hidden):
        logits: Tensor = output(hidden)
        return logits

    weight = output.weight
    logits = hidden.new_empty(len(hidden), len(weight))
    for start in range(0, len(weight), _PIECE):
        piece = weight[start : start + _PIECE]
        torch.mm(hidden, piece.t(), out=logits[:, start : start + _PIECE])
    return logits


def _is_thin(output: nn.Module, hidden: Tensor) -> bool:
    """Whether pieces pay, and whether the head is no more than a product."""
    # A subclass, hooks and whatever stands in place of `forward` do more than that.
    plain = type(output) is nn.Linear and "forward" not in vars(output)
    if not plain or output._forward_hooks or output._forward_pre_hooks:
        return False

    weight = output.weight
    if hidden.ndim != 2 or len(hidden) > _MOST_STATES or len(weight) < _MANY:
        return False
    of_cpu = hidden.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    kinds = {type(weight.data), type(hidden)}
    return of_cpu and output.bias is None and kinds == {Tensor} and not torch.is_grad_enabled()
