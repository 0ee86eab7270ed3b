from __future__ import annotations

import math
import random
from typing import Any

import pytest

from lightning_audiorl.rewards import (
    Accuracy,
    EditCount,
    ExactMatch,
    ExpAccuracy,
    Hallucination,
    Keyword,
    LengthError,
    Reward,
    SoftOverlong,
)
from lightning_audiorl.text import MixedNormaliser, TextForSilence
from lightning_audiorl.types import Decoding
from tests.text.cases import hypothesis

REWARDS: list[Reward] = [
    Accuracy(),
    Accuracy(floor=-1.0),
    ExpAccuracy(),
    ExactMatch(),
    EditCount(),
    LengthError(),
    Hallucination(),
    Keyword(keywords=["bob"]),
    SoftOverlong(Decoding(max_new_tokens=8, min_cap=8, tokens_per_second=0)),
]


def one(reward: Reward, reference: str, text: str, **row: Any) -> float:
    (value,) = reward.score([hypothesis(reference, text, **row)])
    return value


@pytest.mark.parametrize(
    ("reward", "empty_reference", "empty_hypothesis", "both_empty"),
    [
        (Accuracy(), 1 - 3, 0, 1),
        (Accuracy(floor=-1.0), -1, 0, 1),
        (ExpAccuracy(), math.exp(-6), math.exp(-2), 1),
        (ExactMatch(), 0, 0, 1),
        (EditCount(), -3, -3, 0),
        (LengthError(), -1, -1, 0),
        (Hallucination(), -1, -1, 0),
        (Keyword(keywords=["bob"], neutral=0.7), 0, 0, 0.7),
    ],
)
def test_empty_texts(
    reward: Reward, empty_reference: float, empty_hypothesis: float, both_empty: float
) -> None:
    assert one(reward, "", "call Bob now") == pytest.approx(empty_reference)
    assert one(reward, "call Bob now", " ") == pytest.approx(empty_hypothesis)
    assert one(reward, "...", " \n") == both_empty


@pytest.mark.parametrize("reward", REWARDS, ids=lambda reward: reward.name)
def test_finite_and_within_the_stated_range(reward: Reward) -> None:
    draw = random.Random(0)
    pool = ["bob", "call", "now", "你", "я"]
    batch = [
        hypothesis(
            *(" ".join(draw.choices(pool, k=draw.randint(0, 6))) for _ in range(2)),
            num_tokens=draw.randint(0, 12),
        )
        for _ in range(100)
    ]
    values = reward.score(batch)
    low, high = reward.range
    assert len(values) == 100
    assert all(math.isfinite(value) and low <= value <= high for value in values)
    assert len(set(values)) > 1
    assert values[3:5] == reward.score(batch[3:5])


@pytest.mark.parametrize("reward", REWARDS, ids=lambda reward: reward.name)
def test_better_scores_no_less(reward: Reward) -> None:
    reference = "please call bob now"
    good = one(reward, reference, reference, num_tokens=4)
    bad = one(reward, reference, "bob bob bob bob bob bob bob bob bob bob", num_tokens=10)
    assert good == max(reward.score([hypothesis(reference, reference)]))
    assert good > bad


def test_accuracy_counts_in_the_unit_of_the_language() -> None:
    assert one(Accuracy(), "one two three four", "One, two! tree four") == 0.75
    assert one(Accuracy(), "你好世界", "你好，世 间", lang="zh") == 0.75
    assert one(Accuracy(), "こんにちは", "こんにちわ", lang="ja") == pytest.approx(0.8)
    assert one(Accuracy(), "안녕 하세요", "안녕하세요", lang="ko") == 1
    assert one(Accuracy(), "我要 go home", "我要 go 家", lang="zh-en") == 0.75
    assert one(Accuracy(), "a b", "x y z w v") == -1.5
    assert one(Accuracy(floor=-1.0), "a b", "x y z w v") == -1


def test_normalisers_are_replaceable() -> None:
    assert one(
        Accuracy(normalisers={"zh": MixedNormaliser()}), "我要 home", "我要 hole", lang="zh"
    ) == pytest.approx(2 / 3)


def test_exp_accuracy_and_edits() -> None:
    assert one(ExpAccuracy(scale=2.5), "a b c d", "a b c x") == pytest.approx(math.exp(-2.5 / 4))
    assert one(EditCount(), "a b c d", "a x c d e") == -2


def test_length_error_by_worked_numbers() -> None:
    assert one(LengthError(), "a b c d", "x y z") == -0.25
    assert one(LengthError(), "a b c d", "x y z v w w") == -0.5
    assert one(LengthError(), "a b", "a b c d e f") == -1


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("please call me now", "please call please call please call"),
        ("call me", "call me and then i went home"),
        ("one two three four five six", "one two"),
        ("", "thank you"),
        ("good morning", "早上好"),
    ],
)
def test_hallucination_cases(reference: str, text: str) -> None:
    assert one(Hallucination(), reference, text) == -1
    assert one(Hallucination(), reference, reference) == 0


def test_hallucination_rules_are_a_choice() -> None:
    reward = Hallucination(rules=[TextForSilence()])
    assert one(reward, "good morning", "早上好") == 0
    assert one(reward, "", "早") == -1
    with pytest.raises(ValueError, match="at least one rule"):
        Hallucination(rules=[])


def test_keyword_precision_and_recall() -> None:
    reward = Keyword(keywords=["anna"])
    reference = "anna met bob in new york"
    row = {"keywords": ("Bob", "New York")}
    assert one(reward, reference, "anna met bob in new york", **row) == 1
    assert one(reward, reference, "anna met rob in new york", **row) == pytest.approx(
        (1 + 2 / 3) / 2
    )
    assert one(reward, reference, "anna met bob anna in new york", **row) == pytest.approx(
        (3 / 4 + 1) / 2
    )
    assert one(reward, reference, "somebody went out", **row) == 0
    assert one(reward, "it rains", "anna rains", **row) == 0, "an invented keyword is punished"
    assert one(reward, "it rains", "it pours", **row) == 1
    assert one(Keyword(), "我在北京", "我在北 京", lang="zh", keywords=("北京",)) == 1


def test_soft_overlong() -> None:
    reward = SoftOverlong(
        Decoding(max_new_tokens=100, min_cap=10, tokens_per_second=5.0), buffer_share=0.5
    )
    values = [one(reward, "", "", duration_s=2.0, num_tokens=n) for n in (0, 10, 15, 20, 30)]
    assert values == [0, 0, -0.5, -1, -1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Accuracy(weight=math.nan), "Accuracy.weight.*nan"),
        (lambda: Keyword(weight=-1.0), "Keyword.weight.*-1"),
        (lambda: Accuracy(floor=1.0), "Accuracy.floor"),
        (lambda: Accuracy(floor=math.nan), "Accuracy.floor"),
        (lambda: ExpAccuracy(scale=0.0), "ExpAccuracy.scale"),
        (lambda: Keyword(neutral=0.0), "Keyword.neutral"),
        (lambda: ExactMatch(name=""), "ExactMatch.name"),
        (lambda: SoftOverlong(Decoding(), buffer_share=0.0), "buffer_share"),
    ],
)
def test_bad_arguments(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
