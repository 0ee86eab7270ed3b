"""A judge hears the whole of a sample, or says that it could not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl.judges import TransformersJudge
from lightning_audiorl.metrics import SpeechEvaluation
from lightning_audiorl.models import TinyWhisper
from lightning_audiorl.models.tiny import build_whisper
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.types import Hypothesis, Speech, Utterance

RATE_HZ = 16000
#: Of the tiny Whisper, as 30 s is of the published ones.
WINDOW_S = 8


def clip(duration_s: float, key: str = "head") -> Tensor:
    noise = torch.randn(round(duration_s * RATE_HZ), generator=keyed_generator(key))
    return 0.1 * noise


def sample(wave: Tensor) -> Hypothesis:
    row = Utterance(id="long row", segments=(), text="one two", duration_s=1.0)
    return Hypothesis(row, "", 6, True, Speech(wave, RATE_HZ, torch.zeros(5).long()))


def judge(folder: Path, num_timestamps: int = 0, **settings: Any) -> TransformersJudge:
    """A tiny Whisper, with so many tokens for timestamps."""
    sizes = TinyWhisper(words=("one", "two"), width=16, encoder_layers=1, decoder_layers=1)
    model, processor = build_whisper(sizes)
    last = model.generation_config.no_timestamps_token_id
    model.resize_token_embeddings(last + 1 + num_timestamps)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return TransformersJudge(
        str(folder), "seq2seq", generate={"max_new_tokens": 4}, batch_size=3, **settings
    )


@pytest.mark.fault(
    "Speech",
    "a sample longer than the window of a Whisper judge that knows no timestamps",
    "a failure of the judge, counted and explained; it does not hear the first window alone",
)
def test_a_sample_beyond_the_window_is_a_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listens = judge(tmp_path)
    head = clip(WINDOW_S)
    group = [sample(head), sample(torch.cat([head, clip(12, "rest")])), sample(clip(1))]
    with caplog.at_level(logging.WARNING):
        first, long, short = listens.transcribe(group)
    assert isinstance(first, str)
    assert isinstance(short, str)
    assert long is None
    assert "row 'long row'" in caplog.text
    assert "20.000 s of audio; this model takes 8.0 s at once" in caplog.text

    metric = SpeechEvaluation(judge=listens).new()
    metric.update(group)
    assert float(metric.compute()["judge_failure_rate"]) == pytest.approx(1 / 3)


@pytest.mark.fault(
    "Speech",
    "a sample longer than the window of a Whisper judge that knows timestamps",
    "all of it is shown to the model, in long-form generation; the clips beside it are heard as ever",
)
def test_a_sample_beyond_the_window_is_heard_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listens = judge(tmp_path, num_timestamps=401)
    asked: list[dict[str, Any]] = []

    def generate(**inputs: Any) -> Tensor:
        asked.append(inputs)
        return torch.ones(1, 1).long()

    monkeypatch.setattr(listens.model, "generate", generate)
    transcripts = listens.transcribe([sample(clip(2)), sample(clip(20)), sample(clip(WINDOW_S))])
    assert None not in transcripts

    # The tiny model has 100 frames per second, and half as many positions in its window.
    first, long, last = asked
    assert long["input_features"].shape == (1, 40, 2000)
    for inputs in (first, last):
        assert inputs["encoder_outputs"].last_hidden_state.shape[:2] == (1, 400)
    assert [inputs.get("return_timestamps", False) for inputs in asked] == [False, True, False]
