"""Dynamic sampling (DAPO, arXiv 2503.14476): groups that teach nothing give way to further prompts of the stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from lightning_audiorl.models.policy import Context
from lightning_audiorl.ops.join import join_batches, join_rollouts
from lightning_audiorl.types import Hypothesis, PromptBatch, Rollout, Scores


@dataclass(frozen=True)
class Sampled:
    """B prompts with their G samples, scored."""

    batch: PromptBatch
    context: Context
    rollout: Rollout
    scores: Scores
    groups: list[list[Hypothesis]]

    def select(self, index: list[int]) -> Sampled:
        """The groups of the prompts at ``index``."""
        scores = self.scores
        parts = {name: part[index] for name, part in scores.parts.items()}
        return Sampled(
            self.batch.select(index),
            self.context.select(index),
            self.rollout.select(index),
            Scores(scores.total[index], scores.valid[index], parts, scores.failures),
            [self.groups[i] for i in index],
        )


def join_sampled(pieces: Sequence[Sampled]) -> Sampled:
    """The groups of several rollouts as those of one, in order; failures are added up."""
    first, *others = pieces
    sizes = [len(piece.batch) for piece in pieces]
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    places = [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]
    failures: dict[str, int] = {}
    for piece in pieces:
        for name, count in piece.scores.failures.items():
            failures[name] = failures.get(name, 0) + count
    scores = Scores(
        torch.cat([piece.scores.total for piece in pieces]),
        torch.cat([piece.scores.valid for piece in pieces]),
        {name: torch.cat([piece.scores.parts[name] for piece in pieces]) for name in first.scores.parts},
        failures,
    )
    return Sampled(
        join_batches([piece.batch for piece in pieces]),
        first.context.join([piece.context for piece in others]),
        join_rollouts([(place, piece.rollout) for place, piece in zip(places, pieces, strict=True)]),
        scores,
        [group for piece in pieces for group in piece.groups],
    )


def refilled(
    sampled: Sampled,
    teaches: Callable[[Sampled], list[bool]],
    more: Callable[[int, int], Sampled],
    max_refills: int,
    most_of_all_ranks: Callable[[int], int],
    guard: Callable[[], AbstractContextManager[None]],
    present: Callable[[], AbstractContextManager[None]],
) -> tuple[Sampled, dict[str, float]]:
    """Replace groups that teach nothing, for at most ``max_refills`` rounds.

    Every rank takes part in every round, with as many prompts as the rank that lacks most, so that all ranks run the
    same passes. The number of prompts stays: what could not be replaced stays as it was.

    Args:
        sampled: the step's own prompts.
        teaches: which groups have a nonzero advantage.
        more: (round from 1, number of prompts) -> further prompts, sampled and scored.
        max_refills: rounds.
        most_of_all_ranks: the largest of the ranks' numbers.
        guard: context manager that makes an exception on one rank one on all.
        present: context manager inside which the newest context is on the device, and may be taken from.

    Returns:
        The groups, and figures: ``refill/flat`` groups without advantage at first, ``refill/prompts`` sampled beside
        them, ``refill/taken`` of these, ``refill/left`` groups that still teach nothing.
    """
    useful = teaches(sampled)
    flat = [i for i, good in enumerate(useful) if not good]
    missing, pieces, prompts, left = len(flat), [sampled], 0, None
    if flat:
        with present():
            pieces = [sampled.select([i for i, good in enumerate(useful) if good])] if any(useful) else []
            left = sampled.select(flat)
    for attempt in range(1, max_refills + 1):
        wanted = most_of_all_ranks(missing)
        if wanted == 0:
            break
        with guard():
            further = more(attempt, wanted)
            prompts += wanted
            taken = [i for i, good in enumerate(teaches(further)) if good][:missing]
            if taken:
                with present():
                    pieces.append(further.select(taken))
                missing -= len(taken)
    if missing and left is not None:
        pieces.append(left.select(list(range(missing))))
    figures = {"flat": len(flat), "prompts": prompts, "taken": len(flat) - missing, "left": missing}
    joined = pieces[0] if len(pieces) == 1 else join_sampled(pieces)
    return joined, {f"refill/{name}": float(count) for name, count in figures.items()}
