"""Batches and rollouts of some prompts each, put together as one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from lightning_audiorl.types import PromptBatch, Rollout


def join_batches(batches: list[PromptBatch]) -> PromptBatch:
    """The prompts of several batches in one, padded to the longest clip.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> def batch(name: str, num_samples: int) -> PromptBatch:
        ...     row = Utterance(name, segments=(), text="one", duration_s=1.0)
        ...     return PromptBatch(torch.ones(1, num_samples), torch.tensor([num_samples]), 16000, (row,))
        >>> join_batches([batch("a", 3), batch("b", 2)]).waveform
        tensor([[1., 1., 1.],
                [1., 1., 0.]])

    Raises:
        ValueError: for batches with and without target audio.
    """
    targets = [batch.target_waveform for batch in batches if batch.target_waveform is not None]
    ends = [batch.target_num_samples for batch in batches if batch.target_num_samples is not None]
    if len(targets) not in (0, len(batches)):
        raise ValueError("join_batches: some batches have target audio, others have none")

    return PromptBatch(
        waveform=join_padded([batch.waveform for batch in batches]),
        num_samples=torch.cat([batch.num_samples for batch in batches]),
        sample_rate_hz=batches[0].sample_rate_hz,
        rows=tuple(chain.from_iterable(batch.rows for batch in batches)),
        target_waveform=join_padded(targets) if targets else None,
        target_num_samples=torch.cat(ends) if ends else None,
    )


def join_rollouts(parts: Sequence[tuple[list[int], Rollout]]) -> Rollout:
    """Put rollouts of some prompts each back together, padded to the longest completion.

    Example:
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
    places = list(chain.from_iterable(index for index, _ in parts))
    rollouts = [rollout for _, rollout in parts]
    order = torch.argsort(torch.tensor(places)).to(rollouts[0].tokens.device)

    supports = [rollout.support for rollout in rollouts if rollout.support is not None]
    return Rollout(
        tokens=join_padded([rollout.tokens for rollout in rollouts])[order],
        keep=join_padded([rollout.keep for rollout in rollouts])[order],
        log_probs=join_padded([rollout.log_probs for rollout in rollouts])[order],
        finished=torch.cat([rollout.finished for rollout in rollouts])[order],
        support=join_padded(supports, fill=-1)[order] if supports else None,
    )


def join_padded(tensors: Sequence[Tensor], fill: float = 0) -> Tensor:
    """Tensors of one number of dimensions, one below the other along the first, the others padded to the largest.

    Example:
        >>> join_padded([torch.tensor([[1, 2]]), torch.tensor([[3], [4]])], fill=-1)
        tensor([[ 1,  2],
                [ 3, -1],
                [ 4, -1]])
    """
    shapes = [tensor.shape for tensor in tensors]
    largest = [max(sizes) for sizes in zip(*shapes, strict=True)]
    padded = []
    for tensor in tensors:
        # torch wants the room before and after each dimension, the last dimension first.
        sides: list[int] = []
        for dim in reversed(range(1, tensor.ndim)):
            sides += [0, largest[dim] - tensor.shape[dim]]
        padded.append(torch.nn.functional.pad(tensor, sides, value=fill))
    return torch.cat(padded)
