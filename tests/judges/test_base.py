from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from lightning_audiorl.judges import JudgeError, JudgePanel
from lightning_audiorl.types import Hypothesis, Utterance
from tests.helpers import assert_close
from tests.judges.fakes import RATE_HZ, FakeEncoder, FakeJudge, heard, said, sounding


def test_samples_are_heard_in_passes() -> None:
    judge = FakeJudge(["one", "two", "three"])
    samples = [said(value=heard(i)) for i in (2, 0, 1, 2, 0)]
    assert judge.transcribe(samples) == ["three", "one", "two", "three", "one"]
    assert judge.calls == [3, 2]


def test_speech_without_a_sample_is_an_empty_transcript_and_not_listened_to() -> None:
    judge = FakeJudge(["one"])
    assert judge.transcribe([said(num_codes=0), said()]) == ["", "one"]
    assert judge.calls == [1]


def test_one_bad_clip_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    judge = FakeJudge(["one", RuntimeError("out of tune"), None])
    samples = [said(value=heard(i), id=f"row{i}") for i in (0, 1, 0, 2)]
    with caplog.at_level(logging.WARNING):
        assert judge.transcribe(samples) == ["one", None, "one", None]
    assert "row1" in caplog.text
    assert "out of tune" in caplog.text


def test_a_waveform_with_nan_is_a_failure_of_that_sample(caplog: pytest.LogCaptureFixture) -> None:
    broken = said(waveform=torch.tensor([0.0, float("nan")]), id="broken")
    assert FakeJudge(["one"]).transcribe([broken, said()]) == [None, "one"]
    assert "broken" in caplog.text
    assert "NaN" in caplog.text


def test_wrong_number_of_answers() -> None:
    class Short(FakeJudge):
        def listen(self, waveforms: list[Tensor], rows: list[Utterance]) -> list[str | None]:
            return ["one"]

    samples = [said(), said()]
    with pytest.raises(JudgeError, match="gave 1 answers to 2 clips"):
        Short([]).transcribe(samples)
    panel = JudgePanel()
    with pytest.raises(JudgeError, match="gave 1 answers to 2 clips"):
        panel.ask(Short([]), samples)
    (group,) = panel.with_transcripts([samples])
    assert [one.transcripts for one in group] == [{}, {}], "a failure must not look like silence"


def test_passes_that_make_up_for_each_other_are_seen() -> None:
    """Five answers to five clips, but whose?"""

    class Shifted(FakeJudge):
        def listen(self, waveforms: list[Tensor], rows: list[Utterance]) -> list[str | None]:
            return ["one"] * (4 if len(waveforms) == 3 else 1)

    with pytest.raises(JudgeError, match="gave 4 answers to 3 clips"):
        Shifted([]).transcribe([said() for _ in range(5)])


def test_text_is_no_speech() -> None:
    text = Hypothesis(Utterance("r7", (), "one", 1.0), "one")
    with pytest.raises(JudgeError, match="row 'r7' is text"):
        FakeJudge(["one"]).transcribe([text])
    with pytest.raises(JudgeError, match="row 'r7' is text"):
        FakeEncoder().voices([text])


def test_judges_stay_in_eval_mode_and_listen_at_their_rate() -> None:
    judge = FakeJudge(["one"])
    assert not judge.train().training
    assert len(judge.audible(torch.zeros(16000), 16000)) == RATE_HZ
    judge.min_duration_s = 0.5
    assert len(judge.audible(torch.zeros(100), RATE_HZ)) == 4000


def test_voices_and_prompts_are_embedded_once() -> None:
    encoder = FakeEncoder()
    prompt = sounding(0.3, 500)
    samples = [
        said(value=0.1, prompt=prompt),
        said(value=0.2, prompt=prompt),
        said(num_codes=0, prompt=prompt),
        said(),
    ]
    voices = encoder.voices(samples)
    assert sum(encoder.calls) == 4, (
        "two samples of speech with the prompt, one without, and the prompt once"
    )
    for (voice, asked), angle in zip(voices[:2], (0.1, 0.2), strict=True):
        assert voice is not None
        assert asked is not None
        assert_close(torch.dot(voice, asked), torch.tensor(angle - 0.3).cos())
    assert voices[2][0] is None
    assert voices[2][1] is not None
    assert voices[3][1] is None


def test_a_voice_that_cannot_be_embedded_is_none() -> None:
    encoder = FakeEncoder(broken_at=0.5)
    (first, _), (second, _) = encoder.voices([said(value=0.5), said(value=0.25)])
    assert first is None
    assert second is not None


@pytest.mark.parametrize("arguments", [{"name": ""}, {"batch_size": 0}])
def test_bad_settings(arguments: dict) -> None:
    with pytest.raises(ValueError, match=r"want a (name|whole number of at least 1)"):
        FakeJudge(["one"], **arguments)
