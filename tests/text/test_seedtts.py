"""Texts as Seed-TTS-eval compares them, beside its own steps taken one by one."""

from __future__ import annotations

import random
import string
import sys
from types import SimpleNamespace

import pytest

from lightning_audiorl.metrics.transcripts import error_rate
from lightning_audiorl.text import SeedTtsNormaliser
from lightning_audiorl.types import Utterance

#: Of the table that the scripts delete by; typographic apostrophes among them.
CHINESE_SIGNS = "，。！？、；：“”‘’（）《》【】—…·～「」『』－．"


def by_steps(text: str, chars: bool) -> list[str]:
    """Sign after sign is taken out, then the text is cut."""
    for sign in (string.punctuation + CHINESE_SIGNS).replace("'", ""):
        text = text.replace(sign, "")
    return [char for char in text if not char.isspace()] if chars else text.lower().split()


def test_both_units_are_those_of_the_steps() -> None:
    draw = random.Random(0)
    letters = "abC 'é好你 7" + string.punctuation + CHINESE_SIGNS
    for _ in range(300):
        text = "".join(draw.choices(letters, k=draw.randint(0, 30)))
        assert SeedTtsNormaliser().units(text) == by_steps(text, chars=False)
        assert SeedTtsNormaliser("char").units(text) == by_steps(text, chars=True)


def test_normalising_twice_is_normalising_once() -> None:
    for normaliser in (SeedTtsNormaliser(), SeedTtsNormaliser("char")):
        for text in ("It’s A-B, c.", "你好，OK。 好", "", "...", " \t "):
            once = normaliser.normalise(text)
            assert normaliser.normalise(once) == once


@pytest.mark.parametrize(
    ("text", "heard", "unit", "rate"),
    [
        ("A well-known man.", "a well known man", "word", 2 / 3),
        ("It's late", "it’s late", "word", 1 / 2),
        ("twenty dollars", "$20", "word", 1.0),
        ("用OK", "用ok。", "char", 2 / 3),
        ("你好，世界", "你好世姐", "char", 1 / 4),
        ("one two", "one one two three five six", "word", 2.0),
    ],
)
def test_error_rates_worked_by_hand(text: str, heard: str, unit: str, rate: float) -> None:
    row = Utterance("a", (), text, 1.0)
    normaliser = SeedTtsNormaliser(unit)  # type: ignore[arg-type]
    assert error_rate(row, heard, normaliser) == pytest.approx(rate)


def test_traditional_characters_by_zhconv(monkeypatch: pytest.MonkeyPatch) -> None:
    table = SimpleNamespace(convert=lambda text, locale: text.replace("學", "学") + locale[:0])
    monkeypatch.setitem(sys.modules, "zhconv", table)
    assert SeedTtsNormaliser("char", simplified=True).normalise("大學。") == "大学"


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zhconv", None)
    with pytest.raises(ImportError, match=r"lightning-audiorl\[zhconv\]"):
        SeedTtsNormaliser("char", simplified=True)


def test_another_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="expected word or char"):
        SeedTtsNormaliser("letter")  # type: ignore[arg-type]
