"""Batches and rollouts of some prompts each, put together as one."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_audiorl.types import PromptBatch, Rollout


def join_batches(batches: list[PromptBatch]) -> PromptBatch:
    """The prompts of several batches in one, padded to the longest clip.

    Raises:
        ValueError: for batches with and without target audio.
    """

    def together(waves: list[Tensor]) -> Tensor:
        longest = max(wave.shape[1] for wave in waves)
        return torch.cat([torch.nn.functional.pad(wave, (0, longest - wave.shape[1])) for wave in waves])

    targets = [batch.target_waveform for batch in batches if batch.target_waveform is not None]
    ends = [batch.target_num_samples for batch in batches if batch.target_num_samples is not None]
    if len(targets) not in (0, len(batches)):
        raise ValueError("join_batches: some batches have target audio, others have none")
    return PromptBatch(
        together([batch.waveform for batch in batches]),
        torch.cat([batch.num_samples for batch in batches]),
        batches[0].sample_rate_hz,
        tuple(row for batch in batches for row in batch.rows),
        together(targets) if targets else None,
        torch.cat(ends) if ends else None,
    )


def join_rollouts(parts: list[tuple[list[int], Rollout]]) -> Rollout:
    """Put rollouts of some prompts each back together; ``index`` says which prompt of the whole each group is of."""
    where = torch.tensor([i for index, _ in parts for i in index])
    back = torch.argsort(where).to(parts[0][1].tokens.device)

    def together(tensors: list[Tensor], fill: int, width: int, last: int | None = None) -> Tensor:
        out = []
        for tensor in tensors:
            sides = [0, width - tensor.shape[2]]
            if last is not None:
                sides = [0, last - tensor.shape[3], *sides]
            out.append(torch.nn.functional.pad(tensor, sides, value=fill))
        return torch.cat(out)[back]

    rollouts = [rollout for _, rollout in parts]
    width = max(rollout.tokens.shape[2] for rollout in rollouts)
    supports = [rollout.support for rollout in rollouts if rollout.support is not None]
    return Rollout(
        together([rollout.tokens for rollout in rollouts], 0, width),
        together([rollout.keep for rollout in rollouts], 0, width),
        together([rollout.log_probs for rollout in rollouts], 0, width),
        torch.cat([rollout.finished for rollout in rollouts])[back],
        together(supports, -1, width, max(t.shape[3] for t in supports)) if supports else None,
    )
