from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from lightning_audiorl.data import Draw, MixEntry, StepSampler, duration_batches
from lightning_audiorl.data.datamodules.batching import equal_batches, refill_draws
from lightning_audiorl.ops.randomness import keyed_uniform
from tests.data.fakes import Rows


def rows(num: int, name: str = "r") -> Rows:
    return Rows((0.5 + 9 * keyed_uniform(num, name)).tolist(), name)


def mix() -> list[MixEntry]:
    return [
        MixEntry(rows(50, "a"), 0.6),
        MixEntry(rows(7, "b"), 0.3),
        MixEntry(rows(30, "c"), {0: 0.1, 6: 0.4}),
    ]


def steps(num: int, start_step: int = 0, **settings: int) -> list[list[Draw]]:
    settings = {"batch_size": 6, "seed": 3} | settings
    return list(islice(StepSampler(mix(), start_step=start_step, **settings), num))


@pytest.mark.parametrize("pool", [1, 4])
def test_a_resumed_order_goes_on_where_it_stopped(pool: int) -> None:
    whole = steps(10, pool=pool)
    assert steps(10, pool=pool) == whole
    for start in (1, 5, 8):
        assert steps(10 - start, start, pool=pool) == whole[start:]
    assert steps(10, pool=pool, seed=4) != whole


def test_num_steps_ends_the_order() -> None:
    sampler = StepSampler(mix(), 6, seed=3, start_step=2, num_steps=3)
    assert list(sampler) == steps(3, 2)
    assert list(sampler) == steps(3, 2)


def test_shares_are_followed_to_within_a_row() -> None:
    drawn: Counter[int] = Counter()
    owed = [0.0, 0.0, 0.0]
    for step, batch in enumerate(steps(40)):
        assert len(batch) == 6
        drawn.update(draw.source for draw in batch)
        shares = (0.6, 0.3, 0.4 if step >= 6 else 0.1)
        owed = [old + 6 * share / sum(shares) for old, share in zip(owed, shares, strict=True)]
        assert all(abs(drawn[source] - owed[source]) < 1.0 for source in range(3))


def test_a_share_of_zero_draws_nothing() -> None:
    entries = [MixEntry(rows(9), {0: 1.0, 3: 0.0}), MixEntry(rows(9), {2: 1.0})]
    counts = [
        Counter(draw.source for draw in batch) for batch in StepSampler(entries, 5, num_steps=5)
    ]
    assert [count[0] for count in counts][:2] == [5, 5]
    assert 0 < counts[2][0] < 5
    assert [count[1] for count in counts][3:] == [5, 5]


def test_batches_keep_their_size_when_old_debts_come_due() -> None:
    ending = [
        MixEntry(rows(9), {0: 1.0, 1: 0.0}) for _ in range(3)
    ]  # each is drawn .4 rows more than its share
    staying = [MixEntry(rows(9)) for _ in range(2)]  # and these are then owed 2.1 rows each
    sizes = [len(batch) for batch in StepSampler(ending + staying, 3, num_steps=6)]
    assert sizes == [3] * 6


@pytest.mark.parametrize("pool", [1, 4])
def test_rows_come_without_replacement_within_an_epoch(pool: int) -> None:
    draws = [draw for batch in steps(40, pool=pool) for draw in batch]
    assert len(set(draws)) == len(draws) == 240
    second = [draw for draw in draws if draw.source == 1]
    full_epochs = len(second) // 7
    assert full_epochs >= 5
    for epoch in range(full_epochs):
        assert {draw.row for draw in second if draw.epoch == epoch} == set(range(7))
    assert [d.row for d in second if d.epoch == 0] != [d.row for d in second if d.epoch == 1]


def test_a_pool_holds_the_same_rows_as_its_steps_and_pads_less() -> None:
    plain, pooled = steps(8, batch_size=16), steps(8, batch_size=16, pool=8)
    assert Counter(d for b in plain for d in b) == Counter(d for b in pooled for d in b)
    assert {len(batch) for batch in pooled} != {16}

    def padded(batches: list[list[Draw]]) -> list[float]:
        return [len(b) * max(mix()[d.source].source[d.row].duration_s for d in b) for b in batches]

    assert sum(padded(pooled)) < 0.8 * sum(padded(plain))
    assert max(padded(pooled)) < 1.4 * min(padded(pooled))
    longest = [max(mix()[d.source].source[d.row].duration_s for d in b) for b in pooled]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))


@pytest.mark.parametrize(
    ("entries", "settings", "says"),
    [
        ([], {}, "mix is empty"),
        ([MixEntry(rows(3), -1.0)], {}, "shares must be 0 or more"),
        ([MixEntry(rows(3), {})], {}, "shares must be 0 or more"),
        ([MixEntry(Rows([]))], {}, "has no rows"),
        ([MixEntry(rows(3), {1: 1.0})], {}, "every share is 0 at step 0"),
        ([MixEntry(rows(3))], {"batch_size": 0}, "batch_size >= min_rows"),
        ([MixEntry(rows(3))], {"batch_size": 2, "min_rows": 4}, "batch_size >= min_rows"),
        ([MixEntry(rows(3))], {"pool": 0}, "pool >= 1"),
        ([MixEntry(rows(3))], {"start_step": -1}, "start_step >= 0"),
    ],
)
def test_bad_mixes_are_named(entries: list[MixEntry], settings: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        next(iter(StepSampler(entries, **({"batch_size": 2} | settings))))


def test_equal_batches_in_numbers() -> None:
    assert equal_batches([1, 1, 4, 1, 1], 2) == [[2], [0, 1, 3, 4]]
    assert equal_batches([5, 5], 2) == [[0], [1]]
    assert equal_batches([0.0, 0.0, 0.0], 2) == [[0, 1], [2]]
    with pytest.raises(ValueError, match="do not fill"):
        equal_batches([1, 1, 1], 2, min_rows=2)


@pytest.mark.parametrize("min_rows", [1, 2, 3])
@pytest.mark.parametrize("seed", range(10))
def test_equal_batches_cut_everything_once(seed: int, min_rows: int) -> None:
    durations = (0.1 + 20 * keyed_uniform(40, seed) ** 4).tolist()
    cut = equal_batches(durations, 8, min_rows)
    assert len(cut) == 8
    assert min(map(len, cut)) >= min_rows
    assert sorted(i for batch in cut for i in batch) == list(range(40))


def test_duration_batches_in_numbers() -> None:
    assert duration_batches([1, 5, 2, 2], 6, 2) == [[1], [2, 3], [0]]
    assert duration_batches([1, 5, 2, 2], 6, 3) == [[1], [2, 3, 0]]
    assert duration_batches([9.0], 6, 3) == [[0]]
    for bad in ((0, 3), (6, 0)):
        with pytest.raises(ValueError, match="max_batch_s > 0"):
            duration_batches([1], *bad)


@pytest.mark.parametrize("num_rows", [3, 10, 11, 12])
def test_ranks_share_the_rows_and_have_as_many_batches(num_rows: int) -> None:
    durations = keyed_uniform(num_rows, "d").tolist()
    parts = [duration_batches(durations, 2.0, 3, num_ranks=3, rank=rank) for rank in range(3)]
    assert len({len(part) for part in parts}) == 1
    assert sorted(i for part in parts for batch in part for i in batch) == list(range(num_rows))
    with pytest.raises(ValueError, match=f"got {num_rows} rows, 20 ranks"):
        duration_batches(durations, 2.0, 3, num_ranks=20)


def test_refills_follow_the_shares_of_the_step() -> None:
    counts: Counter[tuple[int, bool]] = Counter()
    for step in range(200):
        draws = refill_draws(mix(), 5, seed=1, step=step, attempt=0)
        assert len(set(draws)) == len(draws) == 5
        assert {draw.epoch for draw in draws} == {f"r{step}.0"}
        counts.update((draw.source, step >= 6) for draw in draws)
    for source, share in enumerate((0.6 / 1.3, 0.3 / 1.3, 0.4 / 1.3)):
        assert abs(counts[source, True] / (194 * 5) - share) < 0.02
    assert counts[2, False] < 0.25 * 6 * 5
    assert sum(counts.values()) == 1000


def test_a_refill_takes_no_row_twice_while_there_are_others() -> None:
    entries = [
        MixEntry(rows(3), 0.8),
        MixEntry(rows(40), 0.1),
        MixEntry(rows(5), 0.1),
        MixEntry(rows(9), 0.0),
    ]
    draws = refill_draws(entries, 48, seed=0, step=0, attempt=2)
    assert Counter(draw.source for draw in draws) == {0: 3, 1: 40, 2: 5}
    assert len({(draw.source, draw.row) for draw in draws}) == 48
    draws = refill_draws(entries, 100, seed=0, step=0, attempt=2)
    assert len(set(draws)) == 100
    assert Counter(draw.epoch for draw in draws) == {"r0.2": 48, "r0.2.1": 48, "r0.2.2": 4}


def test_what_cannot_be_refilled_is_named() -> None:
    with pytest.raises(ValueError, match=r"share above 0 at step 3 .*\[0\.0\]"):
        refill_draws([MixEntry(rows(3), {5: 1.0})], 2, seed=0, step=3, attempt=0)
    with pytest.raises(ValueError, match="mix is empty"):
        refill_draws([], 2, seed=0, step=3, attempt=0)
