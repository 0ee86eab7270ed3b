from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_audiorl.rewards import (
    Diversity,
    DurationConsistency,
    Reward,
    RewardError,
    RewardMix,
    SpeechBounds,
)
from lightning_audiorl.rewards.speech_shape import duration_consistency, token_distances
from lightning_audiorl.types import Hypothesis, Utterance
from tests.judges.fakes import said, tone


def test_duration_consistency_by_hand() -> None:
    assert duration_consistency([10, 8, 16, 0]) == pytest.approx([0.0, -0.2, -0.6, -1.0])
    assert duration_consistency([10, 20]) == pytest.approx([-1 / 3, -1 / 3])
    assert duration_consistency([10, 10, 35]) == [0.0, 0.0, -1.0], "clipped at the floor"
    assert duration_consistency([10, 10, 35], floor=-3.0) == [0.0, 0.0, -2.5]
    assert duration_consistency([0, 0, 0]) == [-1.0, -1.0, -1.0]
    assert duration_consistency([7]) == [0.0]


def test_groups_are_rows_and_never_mix() -> None:
    """Two prompts side by side: each sample is compared with its own group alone."""
    group = [said(id="a", num_codes=n) for n in (10, 10, 12)]
    other = [said(id="b", num_codes=n) for n in (40, 50, 40)]
    reward = DurationConsistency()
    assert reward.score(group + other) == pytest.approx([0, 0, -0.2, 0, -0.25, 0])
    assert reward.score(group + other) == reward.score(group) + reward.score(other)
    codes = [said(id="a", codes=c) for c in ([1, 2], [1, 2])] + [
        said(id="b", codes=c) for c in ([3, 4], [5, 6])
    ]
    assert Diversity(distance_weight=1.0, melody_weight=0.0).score(codes) == [0.0, 0.0, 1.0, 1.0]


def test_token_distances_by_hand() -> None:
    assert token_distances([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 9, 4]]) == pytest.approx(
        [0.125, 0.125, 0.25]
    )
    assert token_distances([[1, 2], [3, 4, 5, 6]]) == [1.0, 1.0]
    assert token_distances([[1, 2], [1, 2, 3, 4]]) == [0.5, 0.5]
    assert token_distances([[1, 2], [1, 2], []]) == [0.0, 0.0, 0.0], "silence is not variety"
    assert token_distances([[1, 2], []]) == [0.0, 0.0]
    assert token_distances([[1]]) == [0.0]


def test_diversity_is_a_weighted_sum_of_distance_and_melody() -> None:
    flat, lively = tone(150.0), tone(150.0, glide_semitones=10.0)
    group = [
        said(codes=[1, 2], waveform=flat),
        said(codes=[1, 3], waveform=lively),
        said(num_codes=0),
    ]
    both = Diversity(distance_weight=0.4, melody_weight=0.6).score(group)
    distance = Diversity(distance_weight=1.0, melody_weight=0.0).score(group)
    melody = Diversity(distance_weight=0.0, melody_weight=1.0).score(group)
    assert distance == [0.5, 0.5, 0.0]
    assert melody[0] < 0.05
    assert melody[1] > 0.3
    assert melody[2] == 0.0
    assert both == pytest.approx([0.4 * d + 0.6 * m for d, m in zip(distance, melody, strict=True)])
    wild = said(waveform=torch.cat([tone(80.0), tone(390.0)]))
    assert Diversity(distance_weight=0.0, melody_weight=1.0).score([wild, wild]) == [1.0, 1.0]


def test_a_sample_that_cannot_be_measured_leaves_the_others_their_group(
    caplog: pytest.LogCaptureFixture,
) -> None:
    group = [said(codes=codes, waveform=tone(150.0)) for codes in ([1, 2], [1, 3], [1, 4])]
    broken = said(codes=[5, 6], waveform=torch.full((8000,), torch.nan))
    scores = RewardMix([Diversity()]).score([[*group, broken]])
    assert scores.valid.tolist() == [[True, True, True, False]]
    assert scores.failures == {"diversity": 1}
    assert bool((scores.parts["diversity"][scores.valid] > 0.2).all()), (
        "a lone sample would have no distance"
    )


def bounds(num_codes: int, text: str = "one two", finished: bool = True, **settings: Any) -> float:
    (value,) = SpeechBounds(**settings).score(
        [said(text, num_codes=num_codes, finished=finished, duration_s=2.0)]
    )
    return value


def test_bounds() -> None:
    per_character = {"tokens_per_character": (1.0, 3.0)}
    assert [bounds(n, **per_character) for n in (5, 6, 18, 19)] == [-1, 0, 0, -1]
    per_second = {"tokens_per_second": (5.0, 10.0)}
    assert [bounds(n, **per_second) for n in (9, 10, 20, 21)] == [-1, 0, 0, -1]
    assert bounds(10, finished=False) == -1
    assert bounds(10, finished=False, **per_character) == -1
    assert bounds(0) == bounds(0, tokens_per_character=(0.0, 3.0)) == -1
    assert bounds(10) == 0
    assert bounds(10, text="...", **per_character) == 0
    assert bounds(10, text="...", **per_character, **per_second) == 0
    assert bounds(9, text="...", **per_character, **per_second) == -1


@pytest.mark.parametrize(
    "reward", [DurationConsistency(), Diversity(), SpeechBounds(tokens_per_character=(1.0, 2.0))]
)
def test_ranges_and_texts_without_speech(reward: Reward) -> None:
    group = [said(num_codes=n, codes=None) for n in (0, 1, 10, 100)]
    low, high = reward.range
    values = reward.score(group)
    assert all(low <= value <= high for value in values)
    assert values[0] == low, "nothing said is the worst"
    text = [Hypothesis(Utterance("r1", (), "one", 1.0), "one") for _ in range(2)]
    with pytest.raises(RewardError, match=r"row 'r1' is text; use it with a policy that speaks"):
        RewardMix([reward]).score([text])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DurationConsistency(floor=-0.5), "floor: expected a finite number at most -1"),
        (
            lambda: DurationConsistency(floor=float("nan")),
            "floor: expected a finite number at most -1",
        ),
        (lambda: Diversity(distance_weight=0.0, melody_weight=0.0), "one of them above 0"),
        (
            lambda: Diversity(full_melody_semitones=0.0),
            "full_melody_semitones: want a finite number above 0",
        ),
        (
            lambda: SpeechBounds(tokens_per_second=(3.0, 1.0)),
            r"tokens_per_second: expected \(low, high\)",
        ),
    ],
)
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
