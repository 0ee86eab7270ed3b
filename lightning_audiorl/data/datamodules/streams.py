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
        self.sampler, self.build, self.position = sampler, build, position
        self.rank, self.num_ranks = rank, num_ranks

    def __iter__(self) -> Iterator[PromptBatch]:
        worker = get_worker_info()
        worker_id, num_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        first = self.position.next_step
        for number, draws in enumerate(self.sampler(first)):
            if number % num_workers == worker_id:
                low, high = (len(draws) * r // self.num_ranks for r in (self.rank, self.rank + 1))
                yield self.build(draws[low:high], first + number)


class EvalStream(IterableDataset[PromptBatch]):
    """One pass over an evaluation set. Worker w of W builds every W-th batch, so order holds."""

    def __init__(self, batches: list[list[int]], build: Callable[[list[int]], PromptBatch]) -> None:
        self.batches, self.build = batches, build

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[PromptBatch]:
        worker = get_worker_info()
        worker_id, num_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for index in self.batches[worker_id::num_workers]:
            yield self.build(index)
