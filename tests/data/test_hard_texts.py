"""Hard texts: each kind is what it says, in the words of its vocabulary, the same at every call."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any, get_args

import pytest

from lightning_audiorl.data import HardTexts, hard_texts
from lightning_audiorl.data.corpora.espeak import WORDS, sentence_part
from lightning_audiorl.data.corpora.fsdd import DIGIT_WORDS
from lightning_audiorl.data.corpora.hard_texts import (
    KINDS,
    RARE_WORDS,
    TONGUE_TWISTERS,
    VocabularyName,
    rare_grammar_words,
    words_of,
)
from lightning_audiorl.data.mix.selection.by_text import phrase_said_again

NAMES: tuple[VocabularyName, ...] = get_args(VocabularyName)
LISTED = {word for text in TONGUE_TWISTERS for word in text.split()} | set(RARE_WORDS)
KNOWN: dict[VocabularyName, set[str]] = {
    "digits": set(DIGIT_WORDS),
    "espeak": set(WORDS),
    "english": set(WORDS) | LISTED,
}


def words(name: VocabularyName, kind: str, num: int = 40) -> list[list[str]]:
    return [text.split() for text in hard_texts(name, num, [kind])]


@pytest.mark.parametrize("name", NAMES)
def test_all_words_are_of_the_vocabulary(name: VocabularyName) -> None:
    rows = HardTexts(name, num_rows=150)
    kinds = Counter(row.extra["kind"] for row in rows)
    assert set(kinds) == set(KINDS) - ({"rare"} if name == "digits" else set())
    assert min(kinds.values()) >= 10
    assert {word for row in rows for word in row.text.split()} <= KNOWN[name]
    assert len({row.id for row in rows}) == 150
    assert all(row.segments == () and row.duration_s > 0 for row in rows)
    vocabulary = words_of(name)
    assert {word for group in vocabulary.alike for word in group} <= KNOWN[name]
    assert all(len(group) >= 2 for group in vocabulary.alike)


@pytest.mark.parametrize("name", NAMES)
def test_each_kind_is_what_it_says(name: VocabularyName) -> None:
    for text in words(name, "repeated"):
        _, times = phrase_said_again(text, 1)
        assert times >= 3
    numbers = set(words_of(name).numbers)
    assert all(12 <= len(text) <= 30 and set(text) <= numbers for text in words(name, "numbers"))
    assert all(1 <= len(text) <= 2 for text in words(name, "short"))
    assert all(38 <= len(text) <= 80 for text in words(name, "long"))
    twisters = [text for text in words(name, "twister") if " ".join(text) not in TONGUE_TWISTERS]
    assert len(twisters) >= 10
    for text in twisters:
        assert all(one != other for one, other in pairwise(text))
        assert any(set(text) <= set(group) for group in words_of(name).alike)
        assert 6 <= len(text) <= 12


def test_listed_twisters_and_rare_words_are_said() -> None:
    said = set(hard_texts("english", 200, ["twister"])) & set(TONGUE_TWISTERS)
    assert len(said) > 15
    assert not set(hard_texts("espeak", 100, ["twister"])) & set(TONGUE_TWISTERS)
    for name in ("espeak", "english"):
        rare = set(words_of(name).rare)
        texts = words(name, "rare")
        assert sum(word in rare for text in texts for word in text) > 0.5 * sum(map(len, texts))


def test_rare_words_of_the_grammar_are_those_of_long_lists() -> None:
    rare = rare_grammar_words()
    assert len(rare) == round(len(WORDS) / 4)
    assert {"twelve", "box", "hall", "saturday"} & set(rare)
    assert not {"the", "in", "to", "call", "anna"} & set(rare)


def test_a_text_depends_on_its_number_and_settings_alone() -> None:
    assert HardTexts(num_rows=5)[3] == HardTexts(num_rows=500)[3]
    assert HardTexts(seed=1)[3].text != HardTexts(seed=2)[3].text
    assert hard_texts("espeak", 9) == [row.text for row in HardTexts("espeak", 9)]


def test_parts_share_no_text() -> None:
    texts = {part: set(hard_texts("digits", 120, part=part)) for part in ("train", "dev", "test")}
    assert all(sentence_part(text) == part for part, found in texts.items() for text in found)
    assert not texts["train"] & texts["dev"]
    assert not texts["train"] & texts["test"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocabulary": "klingon"}, "vocabulary must be digits, espeak or english, got 'klingon'"),
        ({"kinds": ["rare"]}, "digits has repeated, numbers, twister, short, long; got"),
        ({"kinds": []}, "digits has repeated"),
        ({"part": "val"}, "part train, dev, test or none; got 1000, 'val'"),
        ({"num_rows": 0}, "num_rows >= 1"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HardTexts(**settings)
