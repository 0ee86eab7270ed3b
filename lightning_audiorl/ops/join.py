"""Batches and rollouts of some prompts each, put together as one."""

from __future__ import annotations

from lightning_audiorl.types import PromptBatch, Rollout


def join_batches(batches: list[PromptBatch]) -> PromptBatch:
    """The prompts of several batches in one, padded to the longest clip.

    Raises:
        ValueError: for batches with and without target audio.
    """
    first, *others = batches
    return first.join(others)


def join_rollouts(parts: list[tuple[list[int], Rollout]]) -> Rollout:
    """Put rollouts of some prompts each back together; ``index`` says which prompt of the whole each group is of."""
    places = [place for index, _ in parts for place in index]
    first, *others = [rollout for _, rollout in parts]
    order = sorted(range(len(places)), key=lambda i: places[i])
    return first.join(others).reordered(order)
