"""Rollouts of some prompts each, put together as one."""

from __future__ import annotations

from lightning_audiorl.types import Rollout


def join_rollouts(parts: list[tuple[list[int], Rollout]]) -> Rollout:
    """Put rollouts of some prompts each back together; ``index`` says which prompt of the whole each group is of."""
    places = [place for index, _ in parts for place in index]
    first, *others = [rollout for _, rollout in parts]
    order = sorted(range(len(places)), key=lambda i: places[i])
    return first.join(others).reordered(order)
