"""Rollouts of some prompts each, put together as one."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_audiorl.types import Rollout


def join_rollouts(parts: Sequence[tuple[list[int], Rollout]]) -> Rollout:
    """Put rollouts of some prompts each back together, padded to the longest completion.

    Example:
        >>> import torch
        >>> def rollout(token: int, num_tokens: int) -> Rollout:
        ...     shape = (1, 1, num_tokens)
        ...     keep = torch.ones(shape, dtype=torch.bool)
        ...     return Rollout(torch.full(shape, token), keep, torch.zeros(shape), keep.all(-1))
        >>> join_rollouts([([1], rollout(5, num_tokens=2)), ([0], rollout(6, num_tokens=1))]).tokens
        tensor([[[6, 0]],
        <BLANKLINE>
                [[5, 5]]])

    Args:
        parts: each rollout beside the places of its prompts in the whole, in the order of its groups.
    """
    places = [place for index, _ in parts for place in index]
    first, *others = [rollout for _, rollout in parts]
    order = sorted(range(len(places)), key=lambda i: places[i])
    return first.join(others).reordered(order)
