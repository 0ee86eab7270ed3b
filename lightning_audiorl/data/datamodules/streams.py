"""What the loaders iterate over: whole batches, from a given step on, each worker and each rank with its own part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch.utils.data import IterableDataset, get_worker_info

from lightning_audiorl.data.datamodules.batching import Draw, StepSampler
from lightning_audiorl.types import PromptBatch


@dataclass
class Position:
    """The step that the next batch is for, shared between the data module and its running loader."""

    next_step: int = 0


class StepStream(IterableDataset[PromptBatch]):
    """Training batches from the current step on. Worker w of W builds every W-th batch, so order holds."""

    def __init__(
        self,
        sampler: Callable[[int], StepSampler],
        build: Callable[[list[Draw], int], PromptBatch],
        position: Position,
        rank: int,
        num_ranks: int,
    ) -> None:
        self.sampler = sampler
        self.build = build
        self.position = position
        self.rank = rank
        self.num_ranks = num_ranks

    def __iter__(self) -> Iterator[PromptBatch]:
        worker_id, num_workers = _worker()
        first_step = self.position.next_step
        for number, draws in enumerate(self.sampler(first_step)):
            if number % num_workers == worker_id:
                # Every rank knows the whole batch and reads the audio of its part.
                low = len(draws) * self.rank // self.num_ranks
                high = len(draws) * (self.rank + 1) // self.num_ranks
                yield self.build(draws[low:high], first_step + number)


class EvalStream(IterableDataset[PromptBatch]):
    """One pass over an evaluation set. Worker w of W builds every W-th batch, so order holds."""

    def __init__(self, batches: list[list[int]], build: Callable[[list[int]], PromptBatch]) -> None:
        self.batches = batches
        self.build = build

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[PromptBatch]:
        worker_id, num_workers = _worker()
        for index in self.batches[worker_id::num_workers]:
            yield self.build(index)


def _worker() -> tuple[int, int]:
    """Number of this loader process among all; (0, 1) where the training process reads."""
    worker = get_worker_info()
    return (0, 1) if worker is None else (worker.id, worker.num_workers)
