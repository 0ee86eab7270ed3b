from __future__ import annotations

import random

import pytest

from lightning_audiorl.text import (
    DEFAULT_RULES,
    Loop,
    OtherScript,
    RunawayLength,
    TextForSilence,
    Truncation,
    fired_rules,
)
from lightning_audiorl.text.hallucination import longest_runs

STORY = "the quick brown fox jumps over the lazy dog near the old river bank today"


def words(text: str) -> list[str]:
    return text.split()


@pytest.mark.parametrize(
    ("reference", "hypothesis", "fires"),
    [
        ("please call me", "please call me me me me me", True),
        ("please call me now", "please call please call please call", True),
        ("how are you", "how are you how are you", True),
        ("a b c d e f g h", "a b c d e f g h a b c d e f g h", True),
        ("please call me", "please call me me", False),
        ("no no no no no", "no no no no no", False),
        ("no no no no no", "no no no no no no no no", True),
        ("one two one two one two", "one two one two one two", False),
        ("one two one two one two", "one two one two one two one two one two", True),
        ("one two three one two three four", "one two three one two three five", False),
        ("seven one seven", "seven seven seven", False),
        ("", "one one one one", True),
        ("", "", False),
        ("one two", "", False),
    ],
)
def test_loop(reference: str, hypothesis: str, fires: bool) -> None:
    assert Loop().fires(words(reference), words(hypothesis)) is fires


def test_loop_arguments() -> None:
    reference, hypothesis = words("please call me"), words("please call me me")
    assert Loop(slack=0).fires(reference, hypothesis)
    assert not Loop(max_n=2).fires(words("how are you"), words("how are you how are you"))
    assert not Loop(slack=1).fires(words("a a a"), words("a a a a")), (
        "'a a' is no bigram of its own"
    )
    with pytest.raises(ValueError, match="max_n=0"):
        Loop(max_n=0)


def test_random_digits_rarely_loop() -> None:
    draw = random.Random(0)
    fired = 0
    for _ in range(200):
        reference = draw.choices("0123456789", k=30)
        heard = [draw.choice("0123456789") if draw.random() < 0.1 else digit for digit in reference]
        fired += Loop().fires(reference, heard)
    assert fired <= 10


def test_longest_runs_against_naive_loop() -> None:
    draw = random.Random(1)
    for n in (1, 2, 3):
        units = draw.choices("ab", k=25)
        naive: dict[tuple[str, ...], int] = {}
        for i in range(len(units) - n + 1):
            gram, run = tuple(units[i : i + n]), 1
            while tuple(units[i + run * n : i + (run + 1) * n]) == gram:
                run += 1
            naive[gram] = max(run, naive.get(gram, 0))
        assert longest_runs(units, n) == naive


@pytest.mark.parametrize(
    ("reference", "hypothesis", "fires"),
    [
        ("yes", "yes it is so", True),
        ("yes", "yes it is", False),
        ("a b c d", "a b c d e f g h", False),
        ("a b c d", "a b c d e f g h i", True),
        ("", "a b c d e", False),
    ],
)
def test_runaway_length(reference: str, hypothesis: str, fires: bool) -> None:
    assert RunawayLength().fires(words(reference), words(hypothesis)) is fires


@pytest.mark.parametrize(
    ("reference", "hypothesis", "fires"),
    [
        (STORY, "the quick brown", True),
        ("a b c d", "a b", False),
        ("yes", "", False),
        ("oh yes", "", True),
    ],
)
def test_truncation(reference: str, hypothesis: str, fires: bool) -> None:
    assert Truncation().fires(words(reference), words(hypothesis)) is fires


def test_text_for_silence() -> None:
    assert TextForSilence().fires([], ["thanks"])
    assert not TextForSilence().fires([], [])
    assert not TextForSilence().fires(["a"], ["b"])


@pytest.mark.parametrize(
    ("reference", "hypothesis", "fires"),
    [
        ("good morning", "早上好", True),
        ("good morning", "доброе утро", True),
        ("早上好", "good morning", True),
        ("早上好 ok", "早上好 okay", False),
        ("こんにちは", "今日は", False),
        ("早上好", "おはよう", True),
        ("早上好", "早上 12", False),
        ("12 13", "twelve", False),
        ("", "text", False),
        ("text", "", False),
        ("안녕", "안녕하세요", False),
    ],
)
def test_other_script(reference: str, hypothesis: str, fires: bool) -> None:
    assert OtherScript().fires(words(reference), words(hypothesis)) is fires
    assert not OtherScript(min_letters=99).fires(words(reference), words(hypothesis))


def test_fired_rules_names() -> None:
    assert fired_rules(words(STORY), words(STORY)) == []
    assert fired_rules([], ["thanks"]) == ["text_for_silence"]
    assert fired_rules(["yes"], ["yes"] * 9) == ["loop", "runaway_length"]
    assert fired_rules(words(STORY), ["早"]) == ["truncation", "other_script"]
    assert fired_rules(["yes"], ["yes"] * 9, [RunawayLength()]) == ["runaway_length"]
    assert len({rule.name for rule in DEFAULT_RULES}) == len(DEFAULT_RULES) == 5
