"""The Mandarin sentences: every character is said as it is read, rows are Chinese rows, and the English ones stay."""

from __future__ import annotations

import re

import pytest

from lightning_audiorl.data.audio.reading import read_audio
from lightning_audiorl.data.corpora.espeak import CHINESE, ENGLISH, EspeakCorpus, draw_sentence
from lightning_audiorl.data.corpora.espeak_chinese import SLOTS, TEMPLATES, VOICES
from lightning_audiorl.data.corpora.espeak_engine import resolve_voice
from lightning_audiorl.data.corpora.grammar import sentence_part
from lightning_audiorl.data.corpora.tts import EspeakSpeech
from lightning_audiorl.models.tiny_base import word_tokenizer
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.text import (
    SpokenNumberNormaliser,
    count_errors,
    count_keywords,
    fired_rules,
    normaliser_for,
)
from tests.data.test_espeak_digits import phonemes

TONES = re.compile("55|35|214|51|11")
#: Every word of the grammar as a dictionary has it, tones as numbers, 5 the neutral one.
READINGS = {
    "小明": "xiao3 ming2",
    "小红": "xiao3 hong2",
    "王芳": "wang2 fang1",
    "李伟": "li3 wei3",
    "张丽": "zhang1 li4",
    "刘强": "liu2 qiang2",
    "陈静": "chen2 jing4",
    "赵军": "zhao4 jun1",
    "北京": "bei3 jing1",
    "上海": "shang4 hai3",
    "南京": "nan2 jing1",
    "广州": "guang3 zhou1",
    "西安": "xi1 an1",
    "成都": "cheng2 du1",
    "天津": "tian1 jin1",
    "武汉": "wu3 han4",
    "今天": "jin1 tian1",
    "明天": "ming2 tian1",
    "后天": "hou4 tian1",
    "今晚": "jin1 wan3",
    "现在": "xian4 zai4",
    "红色的": "hong2 se4 de5",
    "蓝色的": "lan2 se4 de5",
    "白色的": "bai2 se4 de5",
    "黑色的": "hei1 se4 de5",
    "黄色的": "huang2 se4 de5",
    "书": "shu1",
    "信": "xin4",
    "灯": "deng1",
    "钥匙": "yao4 shi5",
    "箱子": "xiang1 zi5",
    "电话": "dian4 hua4",
    "地图": "di4 tu2",
    "车票": "che1 piao4",
    "桌子": "zhuo1 zi5",
    "椅子": "yi3 zi5",
    "厨房": "chu2 fang2",
    "花园": "hua1 yuan2",
    "办公室": "ban4 gong1 shi4",
    "大厅": "da4 ting1",
    "打电话": "da3 dian4 hua4",
    "打开": "da3 kai1",
    # Before a third tone 一 falls; in 关上 the second syllable is light.
    "一点": "yi4 dian3",
    "关上": "guan1 shang5",
    "房间": "fang2 jian1",
    "火车": "huo3 che1",
    "车站": "che1 zhan4",
    "给": "gei3",
    "找": "zhao3",
    "叫": "jiao4",
    "请": "qing3",
    "去": "qu4",
    "来": "lai2",
    "到": "dao4",
    "离开": "li2 kai1",
    "在": "zai4",
    "等": "deng3",
    "和": "he2",
    "把": "ba3",
    "放": "fang4",
    "号": "hao4",
    "送": "song4",
    "从": "cong2",
    "的": "de5",
    "了": "le5",
    "开": "kai1",
}
DIGITS = dict(
    zip(
        "一二三四五六七八九十两",
        ["yi1", "er4", "san1", "si4", "wu3", "liu4", "qi1", "ba1", "jiu3", "shi2", "liang3"],
        strict=True,
    )
)


def reading(word: str) -> str:
    """In pinyin; numbers, hours and days are spelt character by character."""
    if word in READINGS:
        return READINGS[word]
    others = {**DIGITS, "点": "dian3", "星": "xing1", "期": "qi1", "天": "tian1"}
    return " ".join(others[character] for character in word)


def said(text: str, voice: str) -> str:
    return "".join(phonemes(text, voice))


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("espeak"))


def test_every_word_is_said_as_it_is_read() -> None:
    """The same voice reads pinyin: what it makes of the characters is what it makes of their reading."""
    wrong = {
        word: phonemes(word, "cmn")
        for word in CHINESE.words
        if said(word, "cmn") != said(reading(word), "cmn-latn-pinyin")
    }
    assert not wrong


def test_no_sentence_is_spelt_or_loses_a_character() -> None:
    generator = keyed_generator("chinese sentences")
    sentences = {draw_sentence(generator, "train", (3, 8), "zh") for _ in range(60)}
    assert len(sentences) > 50
    for sentence in sorted(sentences)[:30]:
        heard = said(sentence, "cmn")
        # Another language's voice would stand in brackets: (en).
        assert "(" not in heard, sentence
        # Every syllable has one tone.
        assert len(TONES.findall(heard)) == len(sentence), sentence


def test_rows_are_chinese_and_the_english_ones_keep_their_names(cache_dir: str) -> None:
    rows = list(
        EspeakCorpus("test", num_rows=8, num_sentences=(1, 2), cache_dir=cache_dir, lang="zh")
    )
    normaliser = normaliser_for("zh")
    for row in rows:
        assert row.lang == "zh"
        assert row.id.startswith("espeak-zh-test-")
        assert normaliser.normalise(row.text) == row.text
        assert set(row.text) <= set(CHINESE.characters)
        assert read_audio(row, 16000).numel() == row.duration_s * 16000
        assert 0.15 < row.duration_s / len(row.text) < 0.8
        assert row.keywords == tuple(sorted(row.keywords, key=row.text.find))
        counts = count_keywords(row.text, row.text, row.keywords, normaliser)
        assert counts.matched == counts.in_reference >= len(row.keywords)
    assert sum(len(row.keywords) for row in rows) >= 6
    # As they were before there was another language.
    assert EspeakCorpus(cache_dir=cache_dir)[0].id == "espeak-train-cff9c29e-000000"


def test_prompts_and_texts_of_speech_rows_are_chinese(cache_dir: str) -> None:
    rows = EspeakSpeech("dev", num_rows=3, num_words=(3, 4), cache_dir=cache_dir, lang="zh")
    for row in rows:
        assert row.lang == "zh"
        assert row.speaker in VOICES["dev"]
        assert set(row.text + row.extra["prompt_text"]) <= set(CHINESE.characters)
        assert row.extra["prompt_text"] != row.text


def test_names_are_found_where_they_stand_and_nowhere_else() -> None:
    """No neighbours make a name that neither of them is."""
    neighbours = {one + other for one in CHINESE.words for other in CHINESE.words}
    for pair in neighbours:
        made = [name for name in CHINESE.names if pair.find(name) > 0 and not pair.endswith(name)]
        assert not made


def test_parts_share_no_voice_and_no_sentence() -> None:
    voices = [voice for part in VOICES for voice in VOICES[part]]
    assert len({resolve_voice(voice) for voice in voices}) == len(voices)
    generator = keyed_generator("chinese parts")
    for part in VOICES:
        for _ in range(50):
            assert sentence_part(draw_sentence(generator, part, (3, 8), "zh")) == part
    assert {len(template.split()) for template in TEMPLATES} == set(range(3, 9))
    assert all(slot in "".join(TEMPLATES) for slot in SLOTS)
    assert not set(ENGLISH.words) & set(CHINESE.words)


def test_the_tiny_tokenizer_covers_the_sentences() -> None:
    tokenizer = word_tokenizer(list(CHINESE.characters))
    generator = keyed_generator("chinese tokens")
    for _ in range(20):
        sentence = draw_sentence(generator, "train", (3, 8), "zh")
        ids = tokenizer.encode(sentence)
        assert len(ids) == len(sentence)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == sentence
    mixed = word_tokenizer(["yes", "去", "明"])
    assert mixed.encode("yes 去明天") == [5, 6, 7, mixed.unk_token_id]


def test_what_is_counted_of_a_chinese_sentence() -> None:
    reference = "王芳星期二三点到西安"
    normaliser = normaliser_for("zh")
    errors = count_errors(reference, "王芳星期二两点到", "char")
    assert (errors.substitutions, errors.deletions, errors.insertions) == (1, 2, 0)
    counts = count_keywords(reference, "王方星期二三点到西安", ("王芳", "西安"), normaliser)
    assert (counts.matched, counts.in_reference, counts.in_hypothesis) == (1, 2, 1)

    units = normaliser.units
    assert "loop" in fired_rules(units(reference), units("王芳王芳王芳王芳王芳到西安"))
    assert "runaway_length" in fired_rules(units("去西安"), units("请把红色的书送给小明"))
    assert "text_for_silence" in fired_rules(units(""), units("明天去北京"))
    assert not fired_rules(units(reference), units("王方星期二，三点到西安。"))


def test_numbers_in_digits_are_the_spoken_ones() -> None:
    pytest.importorskip("wetext")
    normaliser = SpokenNumberNormaliser("zh")
    assert normaliser.normalise("打开12号房间") == normaliser.normalise("打开十二号房间")
    assert normaliser_for("zh").normalise("打开12号房间") != "打开十二号房间"
