"""Digits by espeak-ng: the Mandarin ones are pronounced right, texts as a recogniser writes them, exact durations."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from lightning_audiorl.data.audio.reading import read_audio
from lightning_audiorl.data.corpora import espeak_engine
from lightning_audiorl.data.corpora.espeak_digits import DIGIT_VOICES, DIGITS, EspeakDigits, Lang
from lightning_audiorl.data.corpora.espeak_engine import synthesise
from lightning_audiorl.text import normaliser_for
from tests.helpers import assert_close

#: líng yī èr sān sì wǔ liù qī bā jiǔ in espeak's letters, tone contours as numbers (55 high, 51 falling, 214 low).
MANDARIN = (
    "li35N",
    "ji55",
    "@r51",
    "sa55n",
    "si[51",
    "wu214",
    "liou51",
    "tS;hi55",
    "pA55",
    "tS;iou214",
)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("espeak"))


def phonemes(text: str, voice: str) -> list[str]:
    """What the library says for ``text``, a word each, without stress marks."""
    library = espeak_engine._load()
    try:
        data = str(espeak_engine._loader().get_data_path()).encode()
        assert (
            library.espeak_Initialize(espeak_engine._SYNCHRONOUS, 0, data, espeak_engine._DONT_EXIT)
            > 0
        )
        assert library.espeak_SetVoiceByName(voice.encode()) == 0
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        held = ctypes.create_string_buffer(text.encode())
        said = library.espeak_TextToPhonemes(
            ctypes.byref(ctypes.c_void_p(ctypes.addressof(held))), 1, 0
        ).decode()
        library.espeak_Terminate()
    finally:
        espeak_engine._unload(library)
    return re.sub(r"['_|]", "", said).split()


def test_mandarin_digits_are_said_right() -> None:
    assert phonemes("".join(DIGITS["zh"]), "cmn") == list(MANDARIN)
    assert phonemes("三七一五九零", "cmn") == [MANDARIN[digit] for digit in (3, 7, 1, 5, 9, 0)]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_no_two_digits_sound_the_same(lang: Lang) -> None:
    voice = DIGIT_VOICES[lang][0]
    assert len({synthesise(digit, voice).tobytes() for digit in DIGITS[lang]}) == 10


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_rows_have_texts_in_phrases_and_exact_durations(lang: Lang, cache_dir: str) -> None:
    rows = list(
        EspeakDigits(lang, num_words=(1, 9), num_rows=12, gap_s=(0.1, 0.2), cache_dir=cache_dir)
    )
    lengths = set()
    for row in rows:
        digits = row.text.split() if lang == "en" else list(row.text)
        assert set(digits) <= set(DIGITS[lang])
        assert normaliser_for(lang).normalise(row.text) == row.text
        assert normaliser_for(row.lang).units(row.text) == digits
        spoken = [
            segment
            for segment in row.segments
            if not segment.audio_filepath.startswith("synthetic:")
        ]
        assert len(digits) / 4 <= len(spoken) <= len(digits) / 3 + 1
        assert all(0.1 <= segment.gap_s <= 0.2 for segment in spoken[1:])
        wave = read_audio(row, 16000)
        assert len(wave) == round(row.duration_s * 16000)
        assert abs(row.duration_s * 16000 - len(wave)) < 1e-3
        assert 0.15 < row.duration_s / len(digits) < 1.2
        assert 0.1 < float(wave.abs().max()) <= 1.0
        assert row.lang == lang
        assert row.speaker in DIGIT_VOICES[lang]
        lengths.add(len(digits))
    assert len(lengths) > 4
    assert len({row.speaker for row in rows}) > 1
    assert len({row.id for row in rows}) == 12


def test_every_digit_comes_up_and_rows_depend_on_seed_and_index_alone(
    cache_dir: str, tmp_path: Path
) -> None:
    few = EspeakDigits("zh", num_words=(6, 6), num_rows=3, cache_dir=cache_dir)
    many = EspeakDigits("zh", num_words=(6, 6), num_rows=20, cache_dir=str(tmp_path))
    backward = [many[i] for i in (2, 1, 0)][::-1]
    for one, other in zip(few, backward, strict=True):
        assert (one.id, one.text, one.speaker, one.duration_s) == (
            other.id,
            other.text,
            other.speaker,
            other.duration_s,
        )
        assert_close(read_audio(one, 16000), read_audio(other, 16000), "exact")
    assert set("".join(row.text for row in many)) == set(DIGITS["zh"])
    other_seed = EspeakDigits("zh", num_words=(6, 6), num_rows=3, seed=1, cache_dir=cache_dir)
    assert other_seed[0].text != few[0].text
    assert other_seed[0].id != few[0].id
    with pytest.raises(IndexError, match="rows 0 to 2 exist"):
        few[3]


def test_one_voice_one_phrase_and_silent_edges(cache_dir: str) -> None:
    settings = {
        "voices": ["cmn+f5"],
        "num_words": (4, 4),
        "words_per_phrase": (4, 4),
        "edge_s": (0.5, 0.5),
    }
    [row] = EspeakDigits("zh", num_rows=1, cache_dir=cache_dir, **settings)  # type: ignore[arg-type]
    assert len(row.segments) == 2
    assert row.speaker == "cmn+f5"
    wave = read_audio(row, 16000)
    assert wave[:8000].abs().max() == wave[-8000:].abs().max() == 0
    assert wave[8000:11200].abs().max() > 0.01


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lang": "fr"}, "EspeakDigits.lang: use one of en, zh, got 'fr'"),
        ({"num_rows": 0}, "num_rows >= 1, got 0"),
        ({"num_words": (0, 3)}, "EspeakDigits.num_words: want .* 1 <= low <= high"),
        ({"words_per_phrase": (3, 2)}, "EspeakDigits.words_per_phrase"),
        ({"gap_s": (0.3, 0.1)}, "EspeakDigits.gap_s"),
        ({"voices": []}, "at least one voice"),
        ({"voices": ["klingonese"]}, "no voice 'klingonese'"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EspeakDigits(**settings)  # type: ignore[arg-type]
