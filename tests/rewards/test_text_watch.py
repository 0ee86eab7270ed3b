"""Texts that are counted otherwise than their writer may think: counted right, or said once with the row's id."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import torch

from lightning_audiorl.judges import AsrJudge
from lightning_audiorl.metrics import AsrEvaluation, AsrMetrics, SpeechEvaluation
from lightning_audiorl.rewards import Accuracy, Hallucination, SpeechAccuracy
from lightning_audiorl.rewards.asr import EditCount, ExactMatch, ExpAccuracy, LengthError
from lightning_audiorl.types import Hypothesis, Speech, Utterance

UNSAID = (".", "...", "-", "!", " ？！ ", "❤️", "<unk>", "\u20e3")


class Says(AsrJudge):
    """Hears the same in every sample."""

    def __init__(self, text: str, name: str = "says") -> None:
        super().__init__(name, 8000)
        self.text = text
        self.freeze()

    def listen(self, waveforms: list[torch.Tensor], rows: list[Utterance]) -> Sequence[str]:
        return [self.text] * len(waveforms)


def written(reference: str, text: str, lang: str = "en", row_id: str = "r") -> Hypothesis:
    return Hypothesis(Utterance(row_id, (), reference, 1.0, lang), text)


def spoken(text: str, lang: str = "en", row_id: str = "r", **row: str) -> Hypothesis:
    speech = Speech(0.1 * torch.sin(torch.arange(8000.0)), 8000, torch.zeros(25).long())
    utterance = Utterance(row_id, (), text, 1.0, lang, **row)  # type: ignore[arg-type]
    return Hypothesis(utterance, "", 26, True, speech)


@pytest.mark.fault(
    "Text",
    "punctuation alone where nothing is said",
    "is text to every reward and metric: no policy can write it for free",
)
@pytest.mark.parametrize("lang", ["en", "zh", "zh-en", "de"])
def test_punctuation_is_text_where_nothing_is_said(lang: str) -> None:
    for text in UNSAID:
        sample = [written("", text, lang)]
        assert Accuracy().score(sample)[0] <= 0, text
        assert ExpAccuracy().score(sample)[0] < 0.2, text
        assert ExactMatch().score(sample) == [0.0], text
        assert EditCount().score(sample)[0] <= -1, text
        assert LengthError().score(sample) == [-1.0], text
        assert Hallucination().score(sample) == [-1.0], text
    assert Hallucination().score([written("", " \n"), written("one", ".")]) == [0.0, 0.0]


@pytest.mark.fault(
    "Text",
    "punctuation alone where nothing is said, in an evaluation",
    "is counted by nonspeech_text_rate and hallucination_rate",
)
def test_metrics_count_punctuation_where_nothing_is_said() -> None:
    metric = AsrMetrics()
    metric.update([written("", text) for text in (*UNSAID, "", " ")])
    rates = metric.compute()
    share = len(UNSAID) / (len(UNSAID) + 2)
    assert float(rates["nonspeech_text_rate"]) == pytest.approx(share)
    assert float(rates["hallucination_rate"]) == pytest.approx(share)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.fault(
    "Text",
    "a Chinese text whose lang is left out or another one",
    "is warned of once, with the row's id, by every reward and metric that counts words",
)
def test_unspaced_text_counted_in_words_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    judge = Says("今天天气真好")
    text = "今天天气很好"
    evaluation = AsrEvaluation()

    for score in (
        lambda: Accuracy().score([written(text, text, row_id=f"row-{i}") for i in range(3)]),
        lambda: AsrMetrics().update([written(text, text, "de", f"row-{i}") for i in range(3)]),
        lambda: [evaluation.new().update([written(text, text, row_id=f"row-{i}")]) for i in (0, 1)],
        lambda: SpeechAccuracy(judge, unit="language").score([spoken(text, row_id="row-0")]),
    ):
        caplog.clear()
        score()
        (message,) = warnings_of(caplog)
        assert "'row-0'" in message
        assert "'zh' (Chinese)" in message


def test_text_that_is_counted_right_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    reward = Accuracy()
    for text, lang in [
        ("今天天气很好", "Chinese"),
        ("今天天气很好", "zh-en"),
        ("call 李明 today", "en"),
        ("안녕 하세요", "en"),
        ("สวัสดี go", "th-en"),
    ]:
        reward.score([written(text, text, lang)])
    SpeechAccuracy(Says("今天"), unit="char").score([spoken("今天天气很好")])
    assert warnings_of(caplog) == []


@pytest.mark.fault(
    "Text",
    "a judge that writes numbers in digits beside a text that has them in words",
    "is said once, with the row's id and the setting that takes them for the same",
)
def test_digits_beside_words_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    judge = Says("7 2 3")
    reward = SpeechAccuracy(judge, unit="language")
    reward.score([spoken("seven two three", row_id="row-7"), spoken("seven", row_id="row-8")])
    (message,) = warnings_of(caplog)
    assert "'row-7'" in message
    assert "normalisers: {en:" in message
    assert "LeaderboardNormaliser" in message

    caplog.clear()
    evaluation = SpeechEvaluation(judge=judge, held_out_judge=Says("seven", "other"))
    for _ in range(2):
        evaluation.new().update([spoken("siete dos tres", "es", "row-9")])
    (message,) = warnings_of(caplog)
    assert "'row-9'" in message
    assert "{lang: es}" in message

    # The row has digits itself, or nothing is said in it.
    caplog.clear()
    Accuracy().score([written("gate 7", "gate seven"), written("", "7")])
    SpeechAccuracy(judge).score([spoken("gate 7")])
    assert warnings_of(caplog) == []


@pytest.mark.fault(
    "Text",
    "a normaliser for a language that is none",
    "is refused where the reward or evaluation is made, with the nearest language",
)
def test_a_normaliser_of_no_language_is_refused() -> None:
    own = Accuracy().normaliser(written("a", "a"))
    for make in (Accuracy, AsrMetrics, AsrEvaluation):
        with pytest.raises(ValueError, match=r"'englsh' is no language.*'en' \(English\)"):
            make(normalisers={"englsh": own})


@pytest.mark.fault(
    "Text",
    "a row of phonemes, or with tags of sounds, to be spoken",
    "is compared with its spoken_text; [laughter] and [breath] are no words",
)
def test_what_is_to_be_heard_is_compared() -> None:
    cases = [
        (spoken("[laughter] that is funny"), "that is funny"),
        (spoken("wait [breath] for it"), "wait for it"),
        (spoken("<strong>wait</strong> for it"), "wait for it"),
    ]
    for sample, heard in cases:
        assert SpeechAccuracy(Says(heard), unit="language").score([sample]) == [1.0]

    phonemes = spoken("haɪ ðɛɹ", spoken_text="hi there")
    for unit in ("char", "language"):
        assert SpeechAccuracy(Says("Hi there."), unit=unit).score([phonemes]) == [1.0]  # type: ignore[arg-type]
    metric = SpeechEvaluation(judge=Says("hi there")).new()
    metric.update([phonemes, spoken("[laughter] hi there")])
    assert float(metric.compute()["cer"]) == 0.0
