"""The espeak-ng corpus: same samples every time, parts apart, exact durations, names as keywords."""

from __future__ import annotations

import hashlib
import inspect
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lightning_audiorl.data.audio.reading import read_audio
from lightning_audiorl.data.corpora import espeak, espeak_engine, espeak_speech
from lightning_audiorl.data.corpora.espeak import (
    NAMES,
    TEMPLATES,
    VOICES,
    WORDS,
    EspeakCorpus,
    Part,
    sentence_part,
)
from lightning_audiorl.data.corpora.espeak_engine import resolve_voice, synthesise, voice_names
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.types import Utterance

SENTENCE = "call anna in paris at seven"
# Female breath, whisper, Klatt and the C library's rand(): each its own noise source in the library.
NOISY = (
    "en-us",
    "en-gb",
    "en-us+f2",
    "en-us+whisper",
    "en-us+klatt4",
    "en-us+caleb",
    "en-gb-scotland+croak",
    "cmn",
)
PARTS: tuple[Part, ...] = ("train", "dev", "test")


def fingerprint(voice: str) -> str:
    text = "打电话给安娜" if voice == "cmn" else SENTENCE
    return hashlib.sha256(synthesise(text, voice).tobytes()).hexdigest()


def run_with_engine(command: str) -> str:
    """What ``command`` prints in a fresh process that has the engine's names alone (no torch: it starts at once)."""
    command = f"import hashlib, runpy; globals().update(runpy.run_path({espeak_engine.__file__!r}))\n{command}"
    return subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("espeak"))


def test_samples_depend_on_the_arguments_alone() -> None:
    forward = [fingerprint(voice) for voice in NOISY]
    time.sleep(1.05)  # left alone, the library seeds its noise from the clock's seconds
    backward = [fingerprint(voice) for voice in reversed(NOISY)]
    assert forward == backward[::-1]
    assert len(set(forward)) == len(NOISY)


def test_a_fresh_process_gives_the_same_samples() -> None:
    command = (
        inspect.getsource(fingerprint)
        + f"SENTENCE = {SENTENCE!r}\nprint(*map(fingerprint, {NOISY[::-1]}))"
    )
    assert run_with_engine(command).split()[::-1] == [fingerprint(voice) for voice in NOISY]


def test_threads_do_not_disturb_each_other() -> None:
    alone = [fingerprint(voice) for voice in NOISY]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fingerprint, NOISY)) == alone


def test_rate_and_pitch_are_heard() -> None:
    assert len(synthesise(SENTENCE, rate_wpm=120)) > 1.3 * len(synthesise(SENTENCE, rate_wpm=200))

    def pitch_hz(pitch: int) -> float:
        samples = synthesise(SENTENCE, pitch=pitch)[6000:20000]
        spectrum = np.fft.rfft(samples * np.hanning(len(samples)), 65536)
        correlation = np.fft.irfft(np.abs(spectrum) ** 2)
        low, high = 22050 // 400, 22050 // 60
        return float(22050 / (low + np.argmax(correlation[low:high])))

    assert pitch_hz(80) > 1.2 * pitch_hz(20)


def test_speech_is_loud_enough_and_sits_in_range() -> None:
    samples = synthesise(SENTENCE, "en-gb-x-rp+f2")
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert 0.2 < np.abs(samples).max() <= 1.0
    assert 1.0 < len(samples) / espeak_engine.SAMPLE_RATE_HZ < 3.0


@pytest.mark.parametrize(
    ("voice", "message"),
    [
        ("en-uz", "no voice 'en-uz'.*en-us"),
        ("en-us+m99", "no variant 'm99'.*m8"),
        ("", "no voice ''"),
    ],
)
def test_unknown_voice_names_near_ones(voice: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthesise(SENTENCE, voice)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"80 <= rate_wpm <= 450, got 20"):
        synthesise(SENTENCE, rate_wpm=20)
    with pytest.raises(ValueError, match=r"0 <= pitch <= 99, got 100"):
        synthesise(SENTENCE, pitch=100)
    with pytest.raises(ValueError, match="said nothing"):
        synthesise("")


def test_language_codes_find_their_voice_file() -> None:
    assert resolve_voice("en-gb") == "en"
    assert resolve_voice("en-US+f2") == "en-US+f2"
    assert resolve_voice("cmn") == resolve_voice("zh") == "cmn"
    assert {"m1", "m7", "f1", "f5", "croak"} <= set(voice_names()[1])


def test_missing_wheel_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    voice_names.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'lightning-audiorl\[synth\]'"):
        EspeakCorpus("train")


def test_a_library_held_by_another_package_is_refused() -> None:
    output = run_with_engine(
        "import ctypes, espeakng_loader as e; keep = ctypes.CDLL(e.get_library_path())\n"
        "try: synthesise('hello')\nexcept RuntimeError as error: print(error)"
    )
    assert "already loaded by another package" in output


def test_rows_do_not_depend_on_order_or_number(cache_dir: str, tmp_path: Path) -> None:
    few, many = (
        EspeakCorpus(num_rows=3, cache_dir=cache_dir),
        EspeakCorpus(num_rows=50, cache_dir=str(tmp_path)),
    )
    backward = [many[i] for i in (2, 1, 0)][::-1]

    def facts(row: Utterance) -> tuple[object, ...]:
        return (
            row.id,
            row.text,
            row.speaker,
            row.duration_s,
            row.keywords,
            [s.gap_s for s in row.segments],
        )

    assert [facts(row) for row in few] == [facts(row) for row in backward]
    for one, other in zip(few, backward, strict=True):
        assert read_audio(one, 16000).equal(read_audio(other, 16000))
    assert EspeakCorpus(num_rows=3, seed=1, cache_dir=cache_dir)[0].text != few[0].text
    with pytest.raises(IndexError):
        few[3]


def test_duration_is_the_decoded_length(cache_dir: str) -> None:
    for row in EspeakCorpus("dev", num_rows=6, num_sentences=(1, 3), cache_dir=cache_dir):
        assert read_audio(row, 16000).numel() == row.duration_s * 16000
        assert all(
            soundfile.info(s.audio_filepath).samplerate == 16000
            for s in row.segments
            if s.audio_filepath != espeak.SILENCE
        )


def test_keywords_are_the_names_of_the_text(cache_dir: str) -> None:
    rows = list(EspeakCorpus("test", num_rows=12, num_sentences=(1, 3), cache_dir=cache_dir))
    for row in rows:
        assert set(row.keywords) == set(row.text.split()) & set(NAMES)
        assert len(set(row.keywords)) == len(row.keywords)
        assert set(row.text.split()) <= set(WORDS)
    assert sum(len(row.keywords) for row in rows) >= 12
    assert len({row.id for row in rows}) == 12


def test_long_rows_are_long_and_medium_rows_have_several_sentences(cache_dir: str) -> None:
    [row] = EspeakCorpus("train", num_rows=1, min_duration_s=20.0, cache_dir=cache_dir)
    assert 20.0 <= row.duration_s < 25.0
    assert row.duration_s * 16000 == read_audio(row, 16000).numel()
    spoken = [s for s in row.segments if s.audio_filepath != espeak.SILENCE]
    assert len(spoken) >= 6
    names = [word for word in row.text.split() if word in NAMES]
    assert len(names) > len(set(names)) == len(row.keywords)
    assert all(0.1 <= s.gap_s <= 0.4 for s in spoken[1:])
    for medium in EspeakCorpus(
        "train", num_rows=4, num_sentences=(2, 4), edge_s=(0.0, 0.0), cache_dir=cache_dir
    ):
        assert 2 <= len(medium.segments) <= 4


def test_silence_at_the_edges(cache_dir: str) -> None:
    [row] = EspeakCorpus(num_rows=1, num_sentences=(2, 2), edge_s=(0.5, 0.5), cache_dir=cache_dir)
    assert row.segments[0].gap_s == row.segments[-1].duration_s == 0.5
    audio = read_audio(row, 16000)
    assert audio[:8000].abs().max() == audio[-8000:].abs().max() == 0
    assert audio[8000:11200].abs().max() > 0.01 < audio[-11200:-8000].abs().max()


def test_parts_share_no_voice_variant_or_sentence() -> None:
    voices = [voice for part in PARTS for voice in VOICES[part]]
    assert len({resolve_voice(voice) for voice in voices}) == len(voices)
    variants = [{voice.partition("+")[2] for voice in VOICES[part]} for part in PARTS]
    assert not variants[0] & variants[1] | variants[0] & variants[2] | variants[1] & variants[2]
    drawn: dict[Part, set[str]] = {}
    for part in PARTS:
        generator = keyed_generator("test", part)
        drawn[part] = {espeak.draw_sentence(generator, part, (3, 8)) for _ in range(300)}
        assert all(sentence_part(sentence) == part for sentence in drawn[part])
        assert {len(sentence.split()) for sentence in drawn[part]} == set(range(3, 9))
    assert (
        not drawn["train"] & drawn["dev"]
        | drawn["train"] & drawn["test"]
        | drawn["dev"] & drawn["test"]
    )
    assert {
        word for words in drawn.values() for sentence in words for word in sentence.split()
    } <= set(WORDS)


def test_vocabulary() -> None:
    assert 90 <= len(WORDS) <= 130
    assert set(NAMES) < set(WORDS)
    assert all(word.isalpha() and word.islower() for word in WORDS)
    assert {len(template.split()) for template in TEMPLATES} == set(range(3, 9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"part": "valid"}, "part must be one of train, dev, test, got 'valid'"),
        ({"num_rows": 0}, "num_rows >= 1, got 0"),
        ({"num_sentences": (3, 2)}, "num_sentences.*1 <= low <= high"),
        ({"num_words": (9, 12)}, "no train sentence has .9, 12. words; it has 3 to 8"),
        ({"voices": []}, "at least one voice"),
        ({"voices": ["en-us", "klingonese"]}, "no voice 'klingonese'"),
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EspeakCorpus(**arguments)  # type: ignore[arg-type]


def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(espeak_speech.soundfile, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        espeak.speak_to_file(tmp_path, SENTENCE, "en-us", 170, 50)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
