"""Dynamic sampling (DAPO, arXiv 2503.14476): groups without a signal give way to further prompts of the stream."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from lightning_audiorl.engine.distributed import all_reduce, raise_on_all_ranks
from lightning_audiorl.losses import ScoredRollout
from lightning_audiorl.strategies import RLStrategy
from lightning_audiorl.types import PromptBatch


@runtime_checkable
class RefillingData(Protocol):
    """A data module whose training mix goes on at will, for dynamic sampling."""

    def refill(self, step: int, attempt: int, num_prompts: int) -> PromptBatch:
        """Further prompts for an RL step."""


def refill(
    samples: ScoredRollout,
    has_signal: Callable[[ScoredRollout], list[bool]],
    sample_more: Callable[[int, int], ScoredRollout],
    max_refills: int,
    strategy: RLStrategy,
    on_device: Callable[[], AbstractContextManager[None]],
) -> tuple[ScoredRollout, dict[str, float]]:
    """Replace groups without a signal, for at most ``max_refills`` rounds.

    Every rank takes part in every round, with as many prompts as the rank that lacks most, so that all ranks run the
    same passes. The number of prompts stays: what could not be replaced stays as it was.

    Args:
        samples: of the step's own prompts.
        has_signal: which groups have anything to learn from.
        sample_more: (attempt, number of prompts) -> these, sampled and scored; attempts count from 1.
        max_refills: rounds.
        strategy: through which ranks agree.
        on_device: inside, the encoded prompts are on the device.

    Returns:
        The groups, and metrics: ``refill/flat`` groups without a signal at first, ``refill/prompts`` sampled beside
        them, ``refill/taken`` of these, ``refill/left`` groups that still have no signal.
    """
    useful = has_signal(samples)
    good = [i for i, has in enumerate(useful) if has]
    flat = [i for i, has in enumerate(useful) if not has]

    # Every rank enters the phase, even one that lacks nothing: under FSDP entering is a collective.
    pieces = [samples]
    without_signal: ScoredRollout | None = None
    with on_device():
        if flat:
            pieces = [samples.select(good)] if good else []
            without_signal = samples.select(flat)

    missing = len(flat)
    num_prompts = 0
    for attempt in range(1, max_refills + 1):
        wanted = int(all_reduce(strategy, missing, "max"))
        if wanted == 0:
            break

        with raise_on_all_ranks(strategy, "a refill"):
            further = sample_more(attempt, wanted)
            num_prompts += wanted
            taken = [i for i, has in enumerate(has_signal(further)) if has][:missing]
            with on_device():
                if taken:
                    pieces.append(further.select(taken))
            missing -= len(taken)

    if missing and without_signal is not None:
        pieces.append(without_signal.select(list(range(missing))))

    metrics = {
        "refill/flat": float(len(flat)),
        "refill/prompts": float(num_prompts),
        "refill/taken": float(len(flat) - missing),
        "refill/left": float(missing),
    }
    first, *others = pieces
    return first.join(others) if others else first, metrics
