"""Marks, case, digits and letters that are one to the ear are one in a comparison; what cannot be said is no word."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from lightning_audiorl.text import normaliser_for

SAME = [
    # Case.
    ("tr", "İstanbul", "istanbul"),
    ("tr", "IŞIK", "ışık"),
    ("az", "I\u0307şıq", "işıq"),
    ("es", "İstanbul", "istanbul"),
    ("de", "STRASSE", "straße"),
    ("el", "ΟΔΟΣ", "οδος"),
    # Arabic script.
    ("ar", "كتـــاب", "كتاب"),
    ("ar", "مُحَمَّد", "محمد"),
    ("ar", "٣", "3"),
    ("fa", "۳۴", "34"),
    ("ar", "ﻻ ﷲ", "لا الله"),
    ("fa", "فارسى", "فارسی"),
    ("ur", "كي", "کی"),
    ("fa", "می\u200cخواهم", "میخواهم"),
    # Digits and letters of other scripts.
    ("he", "שָׁלוֹם", "שלום"),
    ("hi", "१२", "12"),
    ("hi", "\u0958", "\u0915\u093c"),
    ("ml", "ന്\u200d", "ൻ"),
    ("th", "น้ำ", "น\u0e4d\u0e49\u0e32"),
    ("vi", "vie\u0323\u0302t", "việt"),
    ("vi", "vie\u0302\u0323t", "việt"),
    ("ja", "ｶﾞ", "ガ"),
    ("zh", "葛\U000e0100", "葛"),
    # Apostrophes.
    ("haw", "Hawaiʻi", "Hawaiʼi"),
    ("haw", "Hawai‘i", "Hawai'i"),
    ("fr", "l`eau l´eau", "l’eau l＇eau"),
    ("de", "ŉ", "n"),
    ("de", "e\u00ad\u0301", "é"),
]


@pytest.mark.fault(
    "Text",
    "another case, point, digit, form or apostrophe of the same letters",
    "is the same text to rewards and metrics: İ and i in Turkish, ß and ss, tatweel, ٣ and 3, ʻ and ’",
)
@pytest.mark.parametrize(("lang", "one", "other"), SAME)
def test_one_to_the_ear_is_one_in_a_comparison(lang: str, one: str, other: str) -> None:
    normaliser = normaliser_for(lang)
    assert normaliser.normalise(one) == normaliser.normalise(other)


def test_what_sounds_apart_stays_apart() -> None:
    for lang, one, other in [("tr", "ILIK", "ilik"), ("ar", "على", "علي"), ("ur", "کھ", "کہ")]:
        assert normaliser_for(lang).normalise(one) != normaliser_for(lang).normalise(other)


@pytest.mark.fault(
    "Text",
    "an emoji with its selector, a keycap, a lone mark",
    "is no word; a keycap is its digit",
)
@pytest.mark.parametrize("lang", ["en", "de", "zh", "zh-en"])
def test_an_emoji_is_no_word(lang: str) -> None:
    normaliser = normaliser_for(lang)
    for said_by_nobody in (
        "❤️",
        "☀️",
        "👍🏽",
        "👨‍👩‍👧",
        "🇩🇪",
        "㊙️",
        "ℹ️",
        "🈁",
        "™",
        "\u20e3",
        "\u180b",
        "\u3164",
    ):
        assert normaliser.units(said_by_nobody) == [], said_by_nobody
    assert normaliser.units("1️⃣") == ["1"]
    assert normaliser_for("en").units("i love you ❤️") == ["i", "love", "you"]
    assert normaliser_for("zh").units("好☀️") == ["好"]


@pytest.mark.fault("Text", "each mark of Unicode by itself", "is no word")
def test_no_lone_mark_is_a_word() -> None:
    chars = map(chr, range(sys.maxunicode + 1))
    marks = [char for char in chars if unicodedata.category(char)[0] == "M"]
    assert len(marks) > 1800
    normaliser = normaliser_for("de")
    assert [mark for mark in marks if normaliser.normalise(f" {mark} ")] == []
    assert normaliser.normalise("हिन्दी") == "हिन्दी"


def _odd_characters() -> list[str]:
    """One in seven of all letters, marks, digits and signs but for the great blocks of Chinese and Korean."""
    numbers = [number for number in range(0x1F000) if not 0x3400 < number < 0xD800]
    chars = [chr(number) for number in numbers]
    known = [char for char in chars if unicodedata.category(char) not in ("Cn", "Cs", "Co")]
    return known[::7]


@pytest.mark.fault(
    "Text", "a text that is normalised twice, of any character", "is the text normalised once"
)
@pytest.mark.parametrize("lang", ["de", "zh"])
def test_normalising_twice_changes_nothing_for_any_character(lang: str) -> None:
    normaliser = normaliser_for(lang)
    chars = _odd_characters()
    assert len(chars) > 2000
    changed = []
    for char in ["ŉ", "\u00ad", "\u0345", *chars]:
        for text in (f"e{char}\u0301", f"\u1100{char}\u1161", f" '{char}'\u0654"):
            once = normaliser.normalise(text)
            if normaliser.normalise(once) != once:
                changed.append(text)
    assert changed == []


def test_marks_go_with_their_letter_in_mixed_text() -> None:
    assert normaliser_for("th-en").units("ที่ go ร้าน") == ["ที่", "go", "ร้", "า", "น"]
