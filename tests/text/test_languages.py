"""One table of languages: every code and name of a language gets its normaliser."""

from __future__ import annotations

import pytest
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from lightning_audiorl.rewards import Accuracy
from lightning_audiorl.text import normaliser_for
from lightning_audiorl.types import Hypothesis, Utterance

CHINESE = [
    "zh",
    "zh-CN",
    "zh_CN",
    "ZH",
    "zh-Hant-TW",
    "cmn",
    "cmn_hans_cn",
    "zho",
    "chi",
    "Chinese",
    "chinese",
    "Mandarin",
    "中文",
    "yue",
    "wuu",
    "nan",
]
UNSPACED = [
    "jpn",
    "Japanese",
    "日本語",
    "ja-JP",
    "kor",
    "Korean",
    "ko_KR",
    "tha",
    "Thai",
    "lao",
    "mya",
    "bur",
    "khm",
    "Khmer",
]


@pytest.mark.fault(
    "Text",
    "a language by another code, a region, capitals or its name",
    "is the language of its ISO 639-1 code: Chinese is counted in characters by any name",
)
@pytest.mark.parametrize("lang", [*CHINESE, *UNSPACED])
def test_any_code_or_name_of_an_unspaced_language_is_counted_in_characters(lang: str) -> None:
    assert normaliser_for(lang).unit == "char"
    row = Utterance("r", (), "今天天气很好", 1.0, lang)
    (value,) = Accuracy().score([Hypothesis(row, "今天天气真好")])
    assert value == pytest.approx(5 / 6)


@pytest.mark.fault(
    "Text",
    "a language by its name, or by three letters",
    "every language that Whisper names is known by that name, and English by eng or English",
)
def test_every_name_that_whisper_has_is_known() -> None:
    from lightning_audiorl.text.normalise import EnglishNormaliser

    assert type(normaliser_for("English")) is type(normaliser_for("eng")) is EnglishNormaliser

    from lightning_audiorl.languages import known_language

    for name, code in TO_LANGUAGE_CODE.items():
        assert known_language(name) is not None, name
        assert known_language(name) == known_language(name.title()) == known_language(code)


def test_what_is_no_language_is_refused_with_the_nearest() -> None:
    from lightning_audiorl.languages import LanguageError, check_language

    for lang in ("en", "zh-Hant-TW", "tlh", "German", "deu", "es-419", "mixed", "en-zh", "sw_KE"):
        check_language(lang)
    with pytest.raises(LanguageError, match=r"'englsh' is no language.*'en' \(English\)"):
        check_language("englsh")
    for lang in ("xx-nonsense", "xx", "", "en!", "the one of the north"):
        with pytest.raises(LanguageError, match="no language"):
            check_language(lang)


@pytest.mark.parametrize("lang", ["zh-en", "en-zh", "mixed", "ja-en", "ko_en", "cmn-en", "th-en"])
def test_two_languages_of_which_one_has_no_spaces_are_mixed(lang: str) -> None:
    assert normaliser_for(lang).units("我go") == ["我", "go"]
    # English as it is written in Thailand.
    assert normaliser_for("en-TH").units("one two") == ["one", "two"]


def test_a_region_may_have_a_normaliser_of_its_own() -> None:
    own = normaliser_for("mixed")
    assert normaliser_for("cmn", {"zh": own}) is own
    assert normaliser_for("zh-CN", {"Chinese": own}) is own
    assert normaliser_for("zh_tw", {"zh-TW": own}) is own
    assert normaliser_for("zh", {"zh-TW": own}) is not own
    assert normaliser_for("en", {"zh": own}) is not own
