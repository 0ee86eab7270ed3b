"""Which rows make up which batch: a pure function of the seed and the step number, so that a resume is exact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from lightning_audiorl.data.manifest.source import RowSource
from lightning_audiorl.data.mix.shares import Share, share_at
from lightning_audiorl.ops.randomness import keyed_generator, keyed_uniform


class Draw(NamedTuple):
    """One row of one batch: which source, which row of it, and how often that row was drawn before.

    Args:
        source: number of the source in the mix.
        row: number of the row in its source.
        epoch: a number in the order of a `StepSampler`, and ``r<step>.<attempt>`` in a refill.
    """

    source: int
    row: int
    epoch: int | str


@dataclass(frozen=True)
class MixEntry:
    """A source and its share of every batch.

    Args:
        source: the rows.
        share: weight against the other entries; ``{0: 1.0, 200: 0.5}`` changes it from step 200 on.
    """

    source: RowSource
    share: Share = 1.0


TrainMix = Sequence[MixEntry]


def _check_mix(mix: TrainMix) -> None:
    if not mix:
        raise ValueError("the training mix is empty; give at least one source")
    for number, entry in enumerate(mix):
        if isinstance(entry.share, Mapping):
            shares = list(entry.share.values())
        else:
            shares = [entry.share]
        are_fine = [0 <= share < float("inf") for share in shares]
        if not shares or not all(are_fine):
            raise ValueError(
                f"entry {number} of the training mix: shares must be 0 or more, got {entry.share}"
            )

        if len(entry.source) == 0:
            raise ValueError(
                f"entry {number} of the training mix: {type(entry.source).__name__} has no rows"
            )


class _Allocation:
    """Counts per source and step whose running totals follow the shares to within a row."""

    def __init__(self, mix: TrainMix, batch_size: int) -> None:
        self.mix = mix
        self.batch_size = batch_size
        self.step = 0
        self.given = [0] * len(mix)
        # What each source should have given by now, less what it has.
        self._owed = [0.0] * len(mix)

    def next(self) -> list[int]:
        """Rows of each source in the batch of `step`, which moves on by one."""
        shares = [share_at(entry.share, self.step) for entry in self.mix]
        total = sum(shares)
        if total <= 0:
            raise ValueError(
                f"training mix: every share is 0 at step {self.step}; give one source a share"
            )

        # The whole rows of what is owed; the fractions stay owed.
        owed = []
        counts = []
        for old, share in zip(self._owed, shares, strict=True):
            value = old + self.batch_size * share / total
            owed.append(value)
            # After a change of shares a source may have had more than it is owed.
            counts.append(max(0, int(value)) if share > 0 else 0)

        # The rows that rounding left over go to those who are owed most. Whole rows can also exceed the batch after a
        # change of shares, when old debts come due; then those who are owed least give one back.
        while (missing := self.batch_size - sum(counts)) != 0:
            if missing > 0:
                may_get = [k for k, share in enumerate(shares) if share > 0]
                most_owed = max(may_get, key=lambda k: owed[k] - counts[k])
                counts[most_owed] += 1
            else:
                may_give = [k for k, count in enumerate(counts) if count > 0]
                least_owed = min(may_give, key=lambda k: owed[k] - counts[k])
                counts[least_owed] -= 1

        self._owed = [value - count for value, count in zip(owed, counts, strict=True)]
        self.given = [old + count for old, count in zip(self.given, counts, strict=True)]
        self.step += 1
        return counts


class StepSampler:
    """One batch of `Draw` per step, without end unless ``num_steps`` is given.

    A source's rows come without replacement: each epoch is a permutation keyed by (seed, source, epoch). The batch
    of a step depends only on (mix, batch_size, seed, pool, step): starting at step 5 gives what comes after step 4.

    Args:
        mix: sources with their shares.
        batch_size: rows per step; with ``pool`` > 1 the mean of it.
        seed: keys the order.
        start_step: first step to give.
        num_steps: stop after so many steps.
        pool: rows of so many consecutive steps are drawn together, sorted by duration and cut into as many batches of
            about equal padded length, in random order. 1 keeps every batch at ``batch_size``.
        min_rows: fewest rows of a batch (the number of ranks that share it).

    Example:
        >>> from lightning_audiorl.data import NonSpeech
        >>> mix = [MixEntry(NonSpeech(4), share=0.5), MixEntry(NonSpeech(100), share=0.5)]
        >>> batches = list(StepSampler(mix, batch_size=4, num_steps=3))
        >>> [sum(draw.source == 0 for draw in batch) for batch in batches]
        [2, 2, 2]
        >>> list(StepSampler(mix, batch_size=4, start_step=2, num_steps=1)) == batches[2:]
        True
    """

    def __init__(
        self,
        mix: TrainMix,
        batch_size: int,
        seed: int = 0,
        start_step: int = 0,
        num_steps: int | None = None,
        pool: int = 1,
        min_rows: int = 1,
    ) -> None:
        _check_mix(mix)

        if batch_size < min_rows or min_rows < 1 or pool < 1 or start_step < 0:
            raise ValueError(
                f"StepSampler: want batch_size >= min_rows >= 1, pool >= 1, start_step >= 0; got "
                f"batch_size={batch_size}, min_rows={min_rows}, pool={pool}, start_step={start_step}"
            )

        self.mix = mix
        self.batch_size = batch_size
        self.seed = seed
        self.start_step = start_step
        self.num_steps = num_steps
        self.pool = pool
        self.min_rows = min_rows

    def __iter__(self) -> Iterator[list[Draw]]:
        allocation = _Allocation(self.mix, self.batch_size)
        orders: dict[int, tuple[int, list[int]]] = {}
        end = None if self.num_steps is None else self.start_step + self.num_steps

        # Pools are counted out from step 0, whatever the first step asked for: only counts of rows, no rows.
        while end is None or allocation.step < end:
            first_step = allocation.step
            given_before = list(allocation.given)
            for _ in range(self.pool):
                allocation.next()
            if allocation.step <= self.start_step:
                continue

            draws = []
            for source, first in enumerate(given_before):
                for position in range(first, allocation.given[source]):
                    draws.append(self._draw(source, position, orders))

            for step, batch in enumerate(self._batches(draws, first_step), start=first_step):
                if step >= self.start_step and (end is None or step < end):
                    yield batch

    def _draw(self, source: int, position: int, orders: dict[int, tuple[int, list[int]]]) -> Draw:
        """The row at ``position`` in the endless order of one source; ``orders`` keeps the permutation of its epoch."""
        num_rows = len(self.mix[source].source)
        epoch, place = divmod(position, num_rows)
        if source not in orders or orders[source][0] != epoch:
            generator = keyed_generator("order", self.seed, source, epoch)
            orders[source] = (epoch, torch.randperm(num_rows, generator=generator).tolist())

        _, order = orders[source]
        return Draw(source, order[place], epoch)

    def _batches(self, draws: list[Draw], first_step: int) -> list[list[Draw]]:
        """The draws of one pool as its batches."""
        if self.pool == 1:
            generator = keyed_generator("batch", self.seed, first_step)
            order = torch.randperm(len(draws), generator=generator)
            return [_picked(draws, order.tolist())]

        rows = [self.mix[draw.source].source[draw.row] for draw in draws]
        cut = equal_batches([row.duration_s for row in rows], self.pool, self.min_rows)

        # Otherwise the long clips of every pool would come first.
        generator = keyed_generator("pool", self.seed, first_step)
        order = torch.randperm(len(cut), generator=generator)
        return [_picked(draws, cut[place]) for place in order.tolist()]


def _picked(draws: Sequence[Draw], index: Sequence[int]) -> list[Draw]:
    return [draws[i] for i in index]


def refill_draws(mix: TrainMix, num_rows: int, seed: int, step: int, attempt: int) -> list[Draw]:
    """Further rows for one step, outside the order of `StepSampler`: a pure function of the arguments.

    Counts follow the shares at ``step``, rounded up or down by a keyed draw, so that over many calls they are exact.
    No row comes twice while the sources with a share have another one; after that all come again, as
    ``r<step>.<attempt>.1`` and so on.

    Raises:
        ValueError: for an empty mix, shares that are all 0 at ``step``, or ``num_rows`` below 1.

    Example: two rows of one source and one of the other, in keyed order.
        >>> from lightning_audiorl.data import NonSpeech
        >>> mix = [MixEntry(NonSpeech(4), share=0.5), MixEntry(NonSpeech(100), share=0.5)]
        >>> draws = refill_draws(mix, num_rows=3, seed=0, step=7, attempt=1)
        >>> sorted({draw.source for draw in draws}), {draw.epoch for draw in draws}
        ([0, 1], {'r7.1'})
    """
    _check_mix(mix)

    shares = [share_at(entry.share, step) for entry in mix]
    if sum(shares) <= 0 or num_rows < 1 or step < 0 or attempt < 0:
        raise ValueError(
            f"refill: want a share above 0 at step {step} and num_rows >= 1, step >= 0, attempt >= 0; got shares "
            f"{shares}, num_rows={num_rows}, attempt={attempt}"
        )

    key = ("refill", seed, step, attempt)
    # A source without a share at this step has no rows to give.
    sizes = [len(entry.source) for entry in mix]
    sizes = [size if share > 0 else 0 for size, share in zip(sizes, shares, strict=True)]

    draws: list[Draw] = []
    turn = 0
    while len(draws) < num_rows:
        # A further turn begins when every row of the mix is drawn; its rows need other ids.
        epoch = f"r{step}.{attempt}"
        if turn > 0:
            epoch += f".{turn}"

        wanted = min(num_rows - len(draws), sum(sizes))
        offset = float(keyed_uniform(1, *key, turn))
        for source, count in enumerate(_shared_out(shares, sizes, wanted, offset)):
            generator = keyed_generator(*key, turn, source)
            order = torch.randperm(len(mix[source].source), generator=generator)
            draws += [Draw(source, row, epoch) for row in order[:count].tolist()]
        turn += 1

    order = torch.randperm(num_rows, generator=keyed_generator(*key, "order"))
    return _picked(draws, order.tolist())


def _shared_out(
    shares: Sequence[float],
    sizes: Sequence[int],
    num_rows: int,
    offset: float,
) -> list[int]:
    """``num_rows`` cut by shares to whole rows, none above its size; ``offset`` in [0, 1) decides the rounding."""
    counts = []
    total = sum(shares)
    so_far = 0.0
    before = 0
    # The tiny terms keep a sum of shares that misses a whole number by rounding from losing or gaining a row.
    just_below = offset * (1 - 1e-6)
    for share in shares:
        so_far += share
        upto = int(num_rows * so_far / total + just_below + 1e-9)
        counts.append(upto - before)
        before = upto

    # What a source lacks goes to the one with the largest share that has rows left.
    while over := [k for k, count in enumerate(counts) if count > sizes[k]]:
        counts[over[0]] -= 1
        with_rows_left = [k for k, count in enumerate(counts) if count < sizes[k]]
        largest = max(with_rows_left, key=lambda k: shares[k])
        counts[largest] += 1
    return counts


def _longest_first(durations: Sequence[float]) -> list[int]:
    """Numbers of the rows by duration; equal ones stay in their order."""
    return sorted(range(len(durations)), key=lambda i: (-durations[i], i))


def equal_batches(
    durations: Sequence[float], num_batches: int, min_rows: int = 1
) -> list[list[int]]:
    """Cut rows into ``num_batches`` batches of about equal padded seconds (rows x longest), longest rows first.

    Raises:
        ValueError: when there are fewer than ``num_batches * min_rows`` rows.

    Example: 4 padded seconds each.
        >>> equal_batches([1, 1, 4, 1, 1], num_batches=2)
        [[2], [0, 1, 3, 4]]
    """
    if len(durations) < num_batches * min_rows:
        raise ValueError(
            f"{len(durations)} rows do not fill {num_batches} batches of at least {min_rows}"
        )

    order = _longest_first(durations)

    # The smallest bound that needs no more batches, by bisection.
    low = 0.0
    high = max(1e-6, durations[order[0]]) * len(order)
    for _ in range(40):
        bound = (low + high) / 2
        fits = len(_cut(order, durations, bound, min_rows, num_batches)) <= num_batches
        if fits:
            high = bound
        else:
            low = bound
    return _cut(order, durations, high, min_rows, num_batches)


def _cut(
    order: list[int],
    durations: Sequence[float],
    bound: float,
    min_rows: int,
    at_least: int,
) -> list[list[int]]:
    """Fill batches up to ``bound`` padded seconds, leaving enough rows that ``at_least`` batches come out."""
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        longest = max(1e-6, durations[order[start]])
        batches_to_come = at_least - len(batches) - 1
        spare = len(order) - start - batches_to_come * min_rows
        num_rows = max(min_rows, min(int(bound / longest + 1e-9), spare))

        # Rows too few for a batch of their own join this one.
        left = len(order) - start - num_rows
        if left < min_rows:
            num_rows += left
        batches.append(order[start : start + num_rows])
        start += num_rows
    return batches


def duration_batches(
    durations: Sequence[float],
    max_batch_s: float,
    max_batch_size: int,
    num_ranks: int = 1,
    rank: int = 0,
    order: Sequence[int] | None = None,
    padded_s: Sequence[float] | None = None,
) -> list[list[int]]:
    """Evaluation batches: rows sorted by duration, longest first, within a budget of padded seconds.

    With an ``order`` of the rows, batches are cut from that. A row longer than the budget gets a batch of its own. With
    several ranks, each gets its part of the rows, and all get the same number of batches (the few rows left over by the
    division join the last batches). Of a model that pads every clip to one length, ``padded_s`` says the seconds that
    each row is computed as; the order stays that of their durations.

    Raises:
        ValueError: for limits of 0 or less, or fewer rows than ranks.

    Example:
        >>> duration_batches([1, 5, 2, 2], max_batch_s=6, max_batch_size=2)
        [[1], [2, 3], [0]]
        >>> duration_batches([1, 5, 2, 2], max_batch_s=6, max_batch_size=2, order=[2, 0, 3, 1])
        [[2, 0], [3], [1]]
        >>> duration_batches([1, 5, 2, 2], max_batch_s=60, max_batch_size=4, padded_s=[30, 30, 30, 30])
        [[1, 2], [3, 0]]
    """
    if max_batch_s <= 0 or max_batch_size < 1:
        raise ValueError(
            f"want max_batch_s > 0 and max_batch_size >= 1, got {max_batch_s} and {max_batch_size}"
        )
    if len(durations) < num_ranks:
        raise ValueError(
            f"an evaluation set needs a row for each rank: got {len(durations)} rows, {num_ranks} ranks"
        )

    if order is None:
        order = _longest_first(durations)
    costs = durations if padded_s is None else padded_s
    divisible = len(order) - len(order) % num_ranks

    # Of every `num_ranks` rows in order, each rank gets one; the longest of them decides, so that all ranks begin a
    # batch at the same place.
    batches: list[list[int]] = []
    longest = 0.0
    for first in range(0, divisible, num_ranks):
        size = len(batches[-1]) if batches else 0
        longest_of_ranks = max(costs[i] for i in order[first : first + num_ranks])
        longest = max(longest, longest_of_ranks)

        is_full = size == max_batch_size or (size + 1) * longest > max_batch_s
        if not batches or is_full:
            batches.append([])
            longest = longest_of_ranks
        batches[-1].append(order[first + rank])

    if divisible + rank < len(order):
        batches[-1].append(order[divisible + rank])
    return batches
