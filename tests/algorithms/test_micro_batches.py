from __future__ import annotations

import random

import pytest

from lightning_audiorl.engine.micro_batches import micro_batches

PROMPTS = [100, 20, 110, 25, 30, 105]
COMPLETIONS = [10, 5, 12, 4, 9, 11]


def cost(piece: list[int], prompts: list[int], completions: list[int], group_size: int) -> int:
    return len(piece) * (
        max(prompts[i] for i in piece) + group_size * max(completions[i] for i in piece)
    )


@pytest.mark.parametrize(
    "limits", [{}, {"max_tokens": None, "max_prompts": 0}, {"max_tokens": 0, "max_prompts": 6}]
)
def test_without_a_limit_all_at_once_in_the_given_order(limits: dict[str, int | None]) -> None:
    assert micro_batches(PROMPTS, COMPLETIONS, 4, **limits) == [[0, 1, 2, 3, 4, 5]]
    assert micro_batches(PROMPTS, COMPLETIONS, 4, max_tokens=6 * (110 + 4 * 12)) == [
        [0, 1, 2, 3, 4, 5]
    ]


def test_worked_example() -> None:
    """Padded tokens: rows 1 and 3 are 2 * (25 + 4 * 5) = 90 together, with row 4 they are 3 * (30 + 4 * 9) = 198."""
    assert micro_batches(PROMPTS, COMPLETIONS, 4, max_tokens=198) == [[1, 3, 4], [0], [5], [2]]
    assert micro_batches(PROMPTS, COMPLETIONS, 4, max_tokens=197) == [[1, 3], [4], [0], [5], [2]]
    assert micro_batches(PROMPTS, COMPLETIONS, 4, max_tokens=300) == [[1, 3, 4], [0, 5], [2]]


def test_number_of_prompts_is_a_limit_too() -> None:
    assert micro_batches(PROMPTS, COMPLETIONS, 4, max_prompts=2) == [[1, 3], [4, 0], [5, 2]]


def test_a_group_over_the_budget_goes_alone() -> None:
    assert micro_batches([5, 500, 6], [2, 2, 2], 2, max_tokens=20) == [[0, 2], [1]]


def test_no_groups() -> None:
    assert micro_batches([], [], 4, max_tokens=10) == []


@pytest.mark.parametrize("seed", range(20))
def test_every_group_once_within_the_limits(seed: int) -> None:
    rng = random.Random(seed)
    num, group_size = rng.randint(1, 20), rng.randint(1, 8)
    prompts = [rng.randint(1, 200) for _ in range(num)]
    completions = [rng.randint(1, 40) for _ in range(num)]
    max_tokens, max_prompts = rng.choice([None, 400, 1500]), rng.choice([0, 1, 4])
    pieces = micro_batches(prompts, completions, group_size, max_tokens, max_prompts)
    assert sorted(i for piece in pieces for i in piece) == list(range(num))
    for piece in pieces:
        assert not max_prompts or len(piece) <= max_prompts
        padded = cost(piece, prompts, completions, group_size)
        assert max_tokens is None or len(piece) == 1 or padded <= max_tokens
    assert pieces == micro_batches(prompts, completions, group_size, max_tokens, max_prompts)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="2 prompt lengths, 1 completion lengths"):
        micro_batches([1, 2], [1], 4)
    with pytest.raises(ValueError, match=r"want max_tokens >= 0, .* got -1, None, 4"):
        micro_batches([1], [1], 4, max_tokens=-1)
