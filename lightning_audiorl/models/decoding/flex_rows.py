"""Packed rows through torch's FlexAttention: one kernel that is told which keys a query attends to.

On CUDA it is compiled, and neither scores nor weights of a layer are held for the backward pass. Elsewhere it runs
uncompiled and has no backward pass: that is for tests of the rule.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def rule_of(keep: Tensor, length: int) -> Rule:
    """Whether the query at a place of a packed row attends to the key at another.

    Example: a prompt of one token and one of padding, two completions of one token.
        >>> rule = rule_of(torch.tensor([[True, False]]), length=1)
        >>> place = torch.arange(4)
        >>> rule(torch.tensor(0), torch.tensor(0), place[:, None], place[None]).int().tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]]

    Args:
        keep: [B, P] bool, True on a prompt's tokens.
        length: T, tokens of each completion.

    Returns:
        A function of row, head, query place and key place, as FlexAttention takes it.
    """
    num_prompt = keep.shape[1]

    def attends(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        is_kept = keep[row, key.clamp(max=num_prompt - 1)]
        # Padding stands on the right: the prompt's own tokens never come behind it.
        of_prompt = (key < num_prompt) & ((query < num_prompt) | is_kept)

        query_sample = (query - num_prompt) // length
        key_sample = (key - num_prompt) // length
        of_itself = (key >= num_prompt) & (query_sample == key_sample)
        return (query >= key) & (of_prompt | of_itself)

    return attends


def block_mask(keep: Tensor, group_size: int, length: int) -> BlockMask:
    """Which blocks of keys each block of queries needs, once for all layers of a pass.

    Args:
        keep: [B, P] bool, True on a prompt's tokens.
        group_size: G.
        length: T, at least 1.
    """
    num_rows, num_prompt = keep.shape
    num_places = num_prompt + group_size * length
    rule = rule_of(keep, length)
    return create_block_mask(rule, num_rows, None, num_places, num_places, device=str(keep.device))


def attend(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scaling: float) -> Tensor:
    """[B, heads, S, D] over [B, key heads, S, D] -> [B, heads, S, D]."""
    function = _compiled() if query.is_cuda else flex_attention
    grouped = query.shape[1] != key.shape[1]
    out = function(query, key, value, block_mask=mask, scale=scaling, enable_gqa=grouped)
    # With other arguments it returns more.
    assert isinstance(out, Tensor)
    return out


@cache
def _compiled() -> Callable[..., Any]:
    # Lengths differ from step to step.
    return torch.compile(flex_attention, dynamic=True)
