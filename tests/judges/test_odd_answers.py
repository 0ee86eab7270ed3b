"""Judges of one's own that answer something else than was asked of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl.judges import AsrJudge, JudgeError, QualityPredictor, SpeakerEncoder
from lightning_audiorl.metrics.speech import character_errors
from lightning_audiorl.rewards import PredictedQuality, SpeechAccuracy
from lightning_audiorl.text.normalise import normaliser_for
from tests.judges.fakes import RATE_HZ, said, sounding

ANSWERS: dict[str, Any] = {
    "a text for a list": "ab",
    "no order": {"one two", "three"},
    "a dictionary": {0: "one two", 1: "three"},
    "a pipeline's dictionaries": [{"text": "one two"}, {"text": "three"}],
    "bytes": [b"one two", b"three"],
    "numbers": [7, 7],
    "texts with a confidence": [("one two", 0.9), ("three", 0.8)],
}


class Odd(AsrJudge):
    """Gives the same answer to whatever it hears."""

    def __init__(self, answer: Any) -> None:
        super().__init__("odd", RATE_HZ)
        self.answer = answer

    def listen(self, waveforms: list[Tensor], rows: list[Any]) -> Any:
        return self.answer


@pytest.mark.fault(
    "Speech",
    "a judge of one's own that answers with dictionaries, bytes, numbers, a set, or one text for a list",
    "an error that names the judge, what it gave and what is expected; no transcript is made of it",
)
@pytest.mark.parametrize("kind", ANSWERS)
def test_a_transcript_is_a_text(kind: str) -> None:
    samples = [said("one two", 0.1), said("three", 0.2)]
    with pytest.raises(JudgeError, match=r"judge 'odd' gave .*expected"):
        Odd(ANSWERS[kind]).transcribe(samples)


EMBEDDINGS: dict[str, Any] = {
    "long": lambda num: torch.full((num, 4), 50.0),
    "zeros": lambda num: torch.zeros(num, 4),
    "nothing in it": lambda num: torch.ones(num, 0),
    "one dimension": torch.ones,
    "three dimensions": lambda num: torch.ones(num, 2, 3),
}


class OddEncoder(SpeakerEncoder):
    """Gives an embedding of the wrong kind."""

    def __init__(self, kind: str) -> None:
        super().__init__("odd", RATE_HZ)
        self.kind = kind

    def embed(self, waveform: Tensor, num_samples: Tensor, sample_rate_hz: int) -> Tensor:
        found: Tensor = EMBEDDINGS[self.kind](len(waveform))
        return found


@pytest.mark.fault(
    "Speech",
    "a speaker encoder whose embedding is 0, empty, or of another shape",
    "a failure of the judge that says so, and no similarity of 0",
)
@pytest.mark.parametrize("kind", [kind for kind in EMBEDDINGS if kind != "long"])
def test_an_embedding_has_a_direction(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    samples = [said("one", value, prompt=sounding(0.3, 3200)) for value in (0.1, 0.2)]
    assert OddEncoder(kind).voices(samples) == [(None, None)] * 2
    assert "the embedding of the voice" in caplog.text


@pytest.mark.fault(
    "Speech",
    "a predictor of quality whose range is empty, upside down or NaN",
    "an error that names it; no quality is scaled by it",
)
@pytest.mark.parametrize("bounds", [(1.0, 1.0), (5.0, 1.0), (math.nan, 1.0), (0.0, math.inf)])
def test_a_range_is_one(bounds: tuple[float, float]) -> None:
    class Level(QualityPredictor):
        range = bounds

        def predict(self, waveform: Tensor) -> float:
            return 0.5

    with pytest.raises(JudgeError, match=r"Level\.range: want two finite numbers"):
        PredictedQuality(Level("level", RATE_HZ)).score([said("one", 0.1)])


@pytest.mark.fault(
    "Speech",
    "a speaker encoder whose embeddings are not of length 1",
    "a failure of the judge that says so; their product would be no similarity, such as 10,000 in an evaluation",
)
def test_an_embedding_is_of_length_one(caplog: pytest.LogCaptureFixture) -> None:
    samples = [said("one", value, prompt=sounding(0.3, 3200)) for value in (0.1, 0.2)]
    assert OddEncoder("long").voices(samples) == [(None, None)] * 2
    assert "is of length 100, expected 1" in caplog.text


@pytest.mark.fault(
    "Text",
    "a judge that writes the [laughter] which the text asks for",
    "a perfect reading, in reward and metric; where no text asks for it, it is a word too many",
)
def test_a_sound_that_was_asked_for_is_no_error() -> None:
    reward = SpeechAccuracy(Odd(["[laughter] one two"] * 2))
    asked, plain = reward.score([said("one two [laughter]", 0.1), said("one two", 0.2)])
    assert asked == 1.0
    assert plain < 1.0
    for text, errors in (("[laughter] one two", 0), ("one two", 8)):
        row = said(text).row
        assert character_errors(row, "[laughter] one two", normaliser_for("en"))[0] == errors
