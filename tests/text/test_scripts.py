"""Scripts that a language is written in side by side are no translation, whichever of them was spelled."""

from __future__ import annotations

import pytest

from lightning_audiorl.metrics import AsrMetrics
from lightning_audiorl.rewards import Hallucination
from lightning_audiorl.types import Hypothesis, Utterance

SAME = [
    ("ja", "三十", "さんじゅう"),
    ("ja-JP", "東京", "とうきょう"),
    ("jpn", "とうきょう", "東京"),
    ("ja", "三十分", "サンジュップン"),
    ("ko", "大韓民國", "대한민국"),
    ("sr", "добар дан свима", "dobar dan svima"),
    ("hbs", "dobar dan", "добар дан"),
    ("zh", "我喜欢苹果手机", "我喜欢iphone手机"),
    ("zh", "三十", "30"),
]
OTHER = [
    ("zh", "三十", "さんじゅう"),
    ("ja", "三十", "thirty"),
    ("ja", "三十", "さんじゅうさんじゅうさんじゅうごらんください"),
    ("ko", "안녕하세요", "こんにちは"),
    ("zh", "我喜欢苹果", "i like apples"),
    ("de", "guten tag", "добрый день"),
    ("ru", "добрый день", "dobryj den"),
]


def sample(lang: str, reference: str, text: str) -> list[Hypothesis]:
    return [Hypothesis(Utterance("r", (), reference, 1.0, lang), text)]


@pytest.mark.fault(
    "Text",
    "kana for kanji, Hangul for hanja, Latin for Cyrillic in Serbian, a Latin name in Chinese",
    "is no hallucination, in rewards and metrics",
)
@pytest.mark.parametrize(("lang", "reference", "text"), SAME)
def test_another_spelling_is_no_hallucination(lang: str, reference: str, text: str) -> None:
    assert Hallucination().score(sample(lang, reference, text)) == [0.0]


@pytest.mark.parametrize(("lang", "reference", "text"), OTHER)
def test_another_language_is_one(lang: str, reference: str, text: str) -> None:
    assert Hallucination().score(sample(lang, reference, text)) == [-1.0]


def test_the_metric_takes_kana_for_characters() -> None:
    for lang, reference, text, rate in [
        ("ja", "三十", "さんじゅう", 0.0),
        ("ja", "三十", "さんじゅうさんじゅうさんじゅうごらんください", 1.0),
        ("zh", "三十", "さんじゅう", 1.0),
    ]:
        metric = AsrMetrics()
        metric.update(sample(lang, reference, text))
        assert float(metric.compute()["hallucination_rate"]) == rate
