"""How sure a judge is of what it hears, what it hears in silence, and where both are logged."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl.judges import AsrJudge, JudgeError, JudgePanel, TransformersJudge
from lightning_audiorl.judges.transcript import Transcript
from lightning_audiorl.metrics import SpeechEvaluation
from lightning_audiorl.models import TinyWhisper
from lightning_audiorl.models.tiny import build_whisper
from lightning_audiorl.rewards import SpeechAccuracy
from lightning_audiorl.training import silence
from lightning_audiorl.types import Hypothesis, Utterance
from tests.judges.fakes import RATE_HZ, said, tone

GENERATE = {"language": "en", "task": "transcribe", "max_new_tokens": 5}
NO_SPEECH = "<|nospeech|>"


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny Whisper with a token for no speech."""
    folder = tmp_path_factory.mktemp("whisper")
    sizes = TinyWhisper(words=("one", "two"), width=16, encoder_layers=1, decoder_layers=1)
    model, processor = build_whisper(sizes)
    # In the place of a word: an id behind the last control token would be a timestamp.
    file = folder / "tokenizer.json"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    file.write_text(file.read_text().replace('"two"', f'"{NO_SPEECH}"'))
    return str(folder)


def judge(folder: str, **settings: Any) -> TransformersJudge:
    settings = {"generate": GENERATE, "batch_size": 3, "name": "asr"} | settings
    return TransformersJudge(folder, "seq2seq", **settings)


def samples() -> list[Hypothesis]:
    return [said(waveform=tone(100.0 + 60 * i, 0.2 + 0.1 * i)) for i in range(3)]


@pytest.mark.parametrize("settings", [{}, {"window_tail_s": 0.5}])
def test_the_confidence_of_whisper_is_that_of_its_tokens(
    whisper: str, settings: dict[str, Any]
) -> None:
    plain = judge(whisper, **settings).transcribe(samples())
    listens = judge(whisper, confidence=True, **settings)
    sure = listens.transcribe(samples())
    assert sure == plain
    again = ("heard_again",) if settings else ()
    assert listens.reports == ("log_prob", "no_speech_prob", *again)

    for sample, transcript in zip(samples(), sure, strict=True):
        assert isinstance(transcript, Transcript)
        by_hand = _by_hand(listens, sample, settings)
        found = {name: transcript.measures[name] for name in by_hand}
        assert found == pytest.approx(by_hand, abs=1e-5)


def _by_hand(listens: TransformersJudge, sample: Hypothesis, settings: dict[str, Any]) -> Any:
    assert sample.speech is not None
    wave = listens.audible(sample.speech.waveform, RATE_HZ)
    model = listens.model
    if settings:
        assert listens._window is not None
        inputs: dict[str, Any] = {"encoder_outputs": listens._window.encode([wave])}
        encoded = inputs["encoder_outputs"][0]
    else:
        inputs = dict(listens._inputs(wave))
        encoded = model.model.encoder(inputs["input_features"])[0]

    made = model.generate(
        **inputs, **GENERATE, return_dict_in_generate=True, output_scores=True, do_sample=False
    )
    log_probs = [float(scores.log_softmax(-1).max()) for scores in made.scores]

    # The first token behind the start alone, by the decoder and the head.
    start = torch.tensor([[model.config.decoder_start_token_id]])
    hidden = model.model.decoder(start, encoder_hidden_states=encoded)[0]
    first = model.proj_out(hidden)[0, -1].softmax(-1)
    token = listens.processor.tokenizer.convert_tokens_to_ids(NO_SPEECH)
    return {"log_prob": sum(log_probs) / len(log_probs), "no_speech_prob": float(first[token])}


def test_a_judge_bounded_by_max_new_tokens_is_quiet(
    whisper: str, caplog: pytest.LogCaptureFixture
) -> None:
    silence()
    assert "max_new_tokens" in GENERATE
    listens = judge(whisper)
    assert listens.model.generation_config.max_length is not None
    listens.transcribe(samples())
    assert "max_new_tokens" not in caplog.text


def test_clips_that_end_early_do_not_count_what_follows(whisper: str) -> None:
    from lightning_audiorl.judges.models.confidence import GreedyConfidence

    model = judge(whisper).model
    end = int(model.generation_config.eos_token_id)
    sure = GreedyConfidence(model, None)
    scores = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]])
    for last in ([5, 5], [end, 5], [end, 5]):
        assert sure(torch.tensor([[3, last[0]], [3, last[1]]]), scores) is scores

    one, other = scores.log_softmax(-1).max(-1).values.tolist()
    assert [measures["log_prob"] for measures in sure.measures()] == pytest.approx([one, other])
    assert sure._counts is not None
    assert sure._counts.tolist() == [1.0, 3.0]


def test_confidence_wants_greedy_decoding(whisper: str) -> None:
    with pytest.raises(ValueError, match=r"TransformersJudge.confidence: wants kind: seq2seq"):
        TransformersJudge(whisper, "ctc", confidence=True)
    with pytest.raises(ValueError, match="no num_beams in generate"):
        judge(whisper, confidence=True, generate=GENERATE | {"num_beams": 2})


class Fond(AsrJudge):
    """Hears "You." in silence and in high tones, and "seven" in others."""

    silence_check = True

    def __init__(self, in_silence: str | None = " You.", name: str = "fond") -> None:
        super().__init__(name, RATE_HZ)
        self.in_silence = in_silence
        self.lengths: list[int] = []

    def listen(self, waveforms: list[Tensor], rows: list[Utterance]) -> list[str | None]:
        heard: list[str | None] = []
        for wave in waveforms:
            if not wave.any():
                self.lengths.append(len(wave))
                heard.append(self.in_silence)
            else:
                crossings = int((wave[1:].sign() != wave[:-1].sign()).sum())
                heard.append("you" if crossings / len(wave) > 0.1 else "seven")
        return heard


def high_and_low() -> list[Hypothesis]:
    high = 0.1 * torch.sin(torch.arange(4000) * 1.5)
    clips = [high, tone(100.0, 0.5), torch.zeros(4000), tone(120.0, 1.5)]
    return [said("you", waveform=clip) for clip in clips]


def test_what_a_silent_clip_gets_is_no_hit() -> None:
    fond = Fond()
    transcripts = fond.transcribe(high_and_low())
    assert transcripts == ["", "seven", "", "seven"]
    assert [getattr(text, "heard", None) for text in transcripts] == ["you", "seven", None, "seven"]
    # Two whole seconds, once each; a clip that is silent itself is not listened to.
    fond.transcribe(high_and_low())
    assert fond.lengths == [RATE_HZ, 2 * RATE_HZ]

    reward = SpeechAccuracy(Fond())
    assert reward.score(high_and_low())[0] == 0.0
    without = Fond()
    without.silence_check = False
    assert SpeechAccuracy(without).score(high_and_low())[0] == 1.0


def test_a_judge_that_hears_no_word_in_silence_takes_nothing_away() -> None:
    assert Fond(" ... ").transcribe(high_and_low()) == ["you", "seven", "", "seven"]
    with pytest.raises(
        JudgeError, match=r"'fond' gave no transcript of 1 s of silence.*silence_check: false"
    ):
        Fond(None).transcribe(high_and_low())


def test_what_judges_measure_is_in_evaluation_and_log() -> None:
    metric = SpeechEvaluation(judge=Fond(), held_out_judge=Fond(" ", "other")).new()
    metric.update(high_and_low())
    found = metric.compute()
    assert float(found["like_silence"]) == pytest.approx(1 / 3)
    assert float(found["held_out_like_silence"]) == 0.0
    assert "log_prob" not in found

    panel = JudgePanel()
    panel.ask(Fond(), high_and_low())
    panel.ask(Fond(" ", "other"), high_and_low()[2:3])
    (sample,) = panel.with_transcripts([high_and_low()[:1]])[0]
    assert sample.transcripts == {}
    step = panel.end_step()
    assert step["judge/fond/like_silence"] == pytest.approx(1 / 3)
    assert math.isnan(step["judge/other/like_silence"])
    assert panel.end_step() == {}


def test_judges_that_measure_nothing_log_nothing(whisper: str) -> None:
    panel = JudgePanel()
    listens = judge(whisper)
    group = samples()
    panel.ask(listens, group)
    (seen,) = panel.with_transcripts([group])
    assert {type(sample.transcripts["asr"]) for sample in seen} == {str}
    assert panel.end_step() == {}
    metric = SpeechEvaluation(judge=listens).new()
    metric.update(group)
    assert not [name for name in metric.compute() if "log_prob" in name or "silence" in name]
