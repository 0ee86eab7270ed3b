"""Draws from the cumulative distribution over a large vocabulary: the tokens that summing all of it would give.

To sum the probabilities of a whole vocabulary in float64 takes longer than the head's softmax. Sums of short blocks in
float32 tell as well where a draw falls, unless it falls so near to the edge between two tokens that rounding could move
it; such a row is summed as a whole.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

_BLOCK = 64
# A smaller vocabulary is summed as a whole in no time.
_LARGE = 4096
# Of the whole mass. An exponential in float32 errs by 1.2e-7 of itself and a sum of 64 terms by 1e-6 at most; both
# enter a draw's place and the place of an edge.
_MARGIN = 5e-6


def drawn_tokens(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """[rows] int64: for each row the first token up to which more than ``uniform`` of the mass lies.

    Args:
        log_probs: [rows, V] float32; -inf where a token is not allowed.
        uniform: [rows] float64 in [0, 1).

    Example:
        >>> log_probs = torch.tensor([[0.5, 0.25, 0.25]]).log()
        >>> drawn_tokens(log_probs, torch.tensor([0.6], dtype=torch.float64))
        tensor([1])
    """
    # Other devices sum faster than they could be asked whether a row is near an edge.
    if log_probs.device.type != "cpu" or log_probs.shape[-1] < _LARGE:
        return _by_all(log_probs, uniform)

    tokens, is_sure = _by_blocks(log_probs, uniform)
    # In a plan of memory tensors have no values.
    if isinstance(is_sure, FakeTensor) or bool(is_sure.all()):
        return tokens
    rows = (~is_sure).nonzero().squeeze(-1)
    tokens[rows] = _by_all(log_probs[rows], uniform[rows])
    return tokens


def _by_all(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """`drawn_tokens` by float64 sums over the vocabulary."""
    cumulative = log_probs.double().exp().cumsum(-1)
    # The last sum is 1 up to rounding; a draw beyond it would be a token that does not exist.
    target = uniform[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    return tokens.clamp(max=log_probs.shape[-1] - 1)


def _by_blocks(log_probs: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """`drawn_tokens`, and [rows] bool: whether the token is the one of `_by_all` for certain."""
    num_rows, vocab_size = log_probs.shape
    num_blocks = -(-vocab_size // _BLOCK)
    probs = log_probs.new_empty(num_rows, num_blocks * _BLOCK)
    probs[:, vocab_size:] = 0.0
    torch.exp(log_probs, out=probs[:, :vocab_size])
    probs = probs.view(num_rows, num_blocks, _BLOCK)

    # The block that a draw falls into.
    ends = probs.sum(-1).double().cumsum(-1)
    total = ends[:, -1:]
    target = uniform[:, None] * total
    block = torch.searchsorted(ends, target, right=True).clamp_(max=num_blocks - 1)

    # Its place there, and the edges of the token that lies at it.
    start = torch.where(block > 0, ends.gather(-1, (block - 1).clamp_(min=0)), 0.0)
    index = block[..., None].expand(-1, -1, _BLOCK)
    within = probs.gather(1, index).squeeze(1).double().cumsum(-1).add_(start)
    place = torch.searchsorted(within, target, right=True).clamp_(max=_BLOCK - 1)
    upper = within.gather(-1, place)
    lower = torch.where(place > 0, within.gather(-1, (place - 1).clamp_(min=0)), start)

    # Whatever is no number is not sure either.
    margin = _MARGIN * total
    is_sure = (target - lower > margin) & (upper - target > margin)
    return (block * _BLOCK + place).squeeze(-1), is_sure.squeeze(-1)
