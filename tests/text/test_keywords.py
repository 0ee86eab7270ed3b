from __future__ import annotations

from lightning_audiorl.text import (
    CharacterNormaliser,
    EnglishNormaliser,
    KeywordCounts,
    MixedNormaliser,
    count_keywords,
)

EN = EnglishNormaliser()


def test_multiset() -> None:
    counts = count_keywords(
        "Anna met Anna and Bob", "anna met bob and bob and carl", ["anna", "Bob", "carl"], EN
    )
    assert counts == KeywordCounts(matched=2, in_reference=3, in_hypothesis=4)
    assert counts.precision == 0.5
    assert counts.recall == 2 / 3


def test_several_words() -> None:
    keywords = ["New York", "york"]
    assert count_keywords("from new york", "from new york", keywords, EN) == KeywordCounts(2, 2, 2)
    assert count_keywords("from new york", "new from york", keywords, EN) == KeywordCounts(1, 2, 1)


def test_words_are_not_substrings() -> None:
    assert count_keywords("ann", "anna", ["ann"], EN) == KeywordCounts(0, 1, 0)


def test_characters_are_substrings() -> None:
    counts = count_keywords(
        "我在北京大学", "我在北京，大 学", ["北京大学", "北京"], CharacterNormaliser()
    )
    assert counts == KeywordCounts(2, 2, 2)
    assert count_keywords(
        "我在北京", "我在 beijing", ["北京", "Beijing"], MixedNormaliser()
    ) == KeywordCounts(0, 1, 1)


def test_nothing_to_count() -> None:
    counts = count_keywords("a b", "a b", ["", "..."], EN)
    assert counts == KeywordCounts()
    assert counts.precision is None
    assert counts.recall is None
    assert count_keywords("anna", "anna", ["anna", "Anna", "anna!"], EN) == KeywordCounts(1, 1, 1)


def test_repeats_do_not_overlap() -> None:
    assert count_keywords("no no no", "no no no no", ["no no"], EN) == KeywordCounts(1, 1, 2)
