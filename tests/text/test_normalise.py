from __future__ import annotations

import pytest

from lightning_audiorl.text import (
    CharacterNormaliser,
    EnglishNormaliser,
    MixedNormaliser,
    Normaliser,
    WordNormaliser,
    normaliser_for,
)

CASES = [
    (EnglishNormaliser(), "  Hello,   WORLD! ", "hello world"),
    (
        EnglishNormaliser(),
        "Don’t 'stop' rock 'n' roll; the dogs' bowl",
        "don't stop rock n roll the dogs bowl",
    ),
    (EnglishNormaliser(), "<|en|>well-known</s> <unk> [UNK] café", "well known cafe"),
    (EnglishNormaliser(), "co\u00adoperate 3.5 ＡＢＣ", "cooperate 3 5 abc"),
    (WordNormaliser(), "Él dijo: «CAFÉ» — straße", "él dijo café strasse"),
    (WordNormaliser(), "İstanbul हिन्दी", "istanbul हिन्दी"),
    (CharacterNormaliser(), "你好，世界！ １２３ ＡＢc。", "你好世界123abc"),
    (CharacterNormaliser(), "<|zh|>ﾊﾟｰﾃｨｰ と 人々's", "パーティーと人々s"),
    (MixedNormaliser(), "我要去 Starbucks，买don't咖啡", "我 要 去 starbucks 买 don't 咖 啡"),
    (MixedNormaliser(), "", ""),
]
ALL = [EnglishNormaliser(), WordNormaliser(), CharacterNormaliser(), MixedNormaliser()]


@pytest.mark.parametrize(("normaliser", "text", "expected"), CASES)
def test_cases(normaliser: Normaliser, text: str, expected: str) -> None:
    assert normaliser.normalise(text) == expected


@pytest.mark.parametrize("normaliser", ALL)
@pytest.mark.parametrize("text", [case[1] for case in CASES])
def test_normalising_twice_changes_nothing(normaliser: Normaliser, text: str) -> None:
    once = normaliser.normalise(text)
    assert normaliser.normalise(once) == once


@pytest.mark.parametrize("normaliser", ALL)
@pytest.mark.parametrize("text", ["", " \t\n", "...!", "<unk>", "'", "。，"])
def test_nothing_to_say_is_empty(normaliser: Normaliser, text: str) -> None:
    assert normaliser.normalise(text) == ""
    assert normaliser.units(text) == []


def test_units() -> None:
    assert EnglishNormaliser().units("One, two") == ["one", "two"]
    assert CharacterNormaliser().units("一 二") == ["一", "二"]
    assert MixedNormaliser().units("一二 three") == ["一", "二", "three"]


@pytest.mark.parametrize(
    ("lang", "kind", "unit"),
    [
        ("en", EnglishNormaliser, "word"),
        ("en_US", EnglishNormaliser, "word"),
        ("zh", CharacterNormaliser, "char"),
        ("zh-CN", CharacterNormaliser, "char"),
        ("ja", CharacterNormaliser, "char"),
        ("ko", CharacterNormaliser, "char"),
        ("th", CharacterNormaliser, "char"),
        ("zh-en", MixedNormaliser, "word"),
        ("de", WordNormaliser, "word"),
        ("", WordNormaliser, "word"),
    ],
)
def test_language_table(lang: str, kind: type, unit: str) -> None:
    assert type(normaliser_for(lang)) is kind
    assert normaliser_for(lang).unit == unit


def test_overrides_win() -> None:
    own = MixedNormaliser()
    assert normaliser_for("zh-CN", {"zh": own}) is own
    assert normaliser_for("en", {"zh": own}) is not own
