from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

from lightning_audiorl.judges import (
    CtcJudge,
    EcapaEncoder,
    Judge,
    JudgeError,
    JudgePanel,
    PolicyJudge,
    TransformersJudge,
    TransformersSpeakerEncoder,
)
from lightning_audiorl.metrics import AsrEvaluation, SpeechEvaluation
from lightning_audiorl.models import FunAsrNanoPolicy, TinyFunAsrNano, TinyWhisper
from lightning_audiorl.models.tiny import build_whisper
from lightning_audiorl.rewards import RewardMix, SpeakerSimilarity, SpeechAccuracy
from lightning_audiorl.types import Decoding, Hypothesis, Utterance
from tests import speech
from tests.judges.fakes import FakeEncoder, FakeJudge, heard, said, sounding
from tests.judges.test_pretrained import SMALL_WAVE, ctc_folder


def folder_of(kind: str, folder: Path) -> str:
    if kind == "ctc":
        return ctc_folder(folder)
    if kind == "whisper":
        model, processor = build_whisper(
            TinyWhisper(words=("one",), width=16, encoder_layers=1, decoder_layers=1)
        )
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    if kind == "wavlm":
        sizes: dict[str, Any] = {
            "tdnn_dim": (8,),
            "tdnn_kernel": (3,),
            "tdnn_dilation": (1,),
            "xvector_output_dim": 6,
        }
        WavLMForXVector(WavLMConfig(**SMALL_WAVE, **sizes)).save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(
            folder
        )
    return str(folder)


def policy_judge(folder: str, **settings: Any) -> PolicyJudge:
    return PolicyJudge(
        FunAsrNanoPolicy(TinyFunAsrNano(words=("one",), width=16, encoder_layers=1, lm_layers=1))
    )


MAKERS: dict[str, Callable[[str], Judge]] = {
    "ours": lambda folder: CtcJudge(str(speech.judge_folders(Path(folder))["judge"])),
    "ecapa": lambda folder: EcapaEncoder(str(speech.judge_folders(Path(folder))["encoder"])),
    "policy": policy_judge,
    "ctc": lambda folder: TransformersJudge(folder, "ctc"),
    "whisper": lambda folder: TransformersJudge(folder, "seq2seq", generate={"task": "transcribe"}),
    "wavlm": TransformersSpeakerEncoder,
}


def panel_of(*judges: Judge) -> JudgePanel:
    panel = JudgePanel()
    for judge in judges:
        panel.seat(judge)
    return panel


# --- one question per sample and step


def test_each_sample_is_heard_once_whoever_asks() -> None:
    panel, judge = JudgePanel(), FakeJudge(["one", "two", "three"])
    samples = [said(value=heard(i)) for i in (2, 0, 1, 2, 0)]
    assert panel.ask(judge, samples) == ["three", "one", "two", "three", "one"]
    assert judge.calls == [3, 2]
    assert panel.ask("fake", samples[::-1]) == ["one", "three", "two", "one", "three"]
    assert judge.calls == [3, 2]
    assert panel.ask(judge, [samples[1], said(), samples[0]]) == ["one", "one", "three"]
    assert judge.calls == [3, 2, 1], "only the new one"
    panel.clear()
    assert panel.ask(judge, samples[:1]) == ["three"]
    assert judge.calls == [3, 2, 1, 1]


def test_failures_are_remembered() -> None:
    panel, judge = JudgePanel(), FakeJudge(["one", RuntimeError("out of tune"), None])
    samples = [said(value=heard(i)) for i in (0, 1, 0, 2)]
    assert panel.ask(judge, samples) == ["one", None, "one", None]
    calls = list(judge.calls)
    assert panel.ask(judge, samples) == ["one", None, "one", None]
    assert judge.calls == calls


def test_voices_and_prompts_are_embedded_once() -> None:
    panel, encoder = JudgePanel(), FakeEncoder()
    prompt = sounding(0.3, 500)
    samples = [said(value=0.1, prompt=prompt), said(value=0.2, prompt=prompt)]
    first = panel.ask(encoder, samples)
    assert panel.ask(encoder, samples) == first
    assert sum(encoder.calls) == 3


def test_samples_carry_the_transcripts_of_the_step() -> None:
    """By judge, in the order in which they were asked; embeddings are none; the samples given stay as they are."""
    panel = JudgePanel()
    samples = [said(value=heard(0)), said(value=heard(1))]
    panel.ask(FakeJudge(["a", None], name="second"), samples)
    panel.ask(FakeEncoder(), samples)
    panel.ask(FakeJudge(["b", "c"], name="first"), samples[:1])
    (group,) = panel.with_transcripts([samples])
    assert [list(one.transcripts.items()) for one in group] == [
        [("second", "a"), ("first", "b")],
        [("second", None)],
    ]
    assert [one.speech for one in group] == [one.speech for one in samples]
    assert all(not one.transcripts for one in samples)
    text = Hypothesis(Utterance("r", (), "one", 1.0), "one")
    assert panel.with_transcripts([[text]]) == [[text]]
    panel.clear()
    assert not panel.with_transcripts([samples])[0][0].transcripts


def test_text_is_no_speech() -> None:
    with pytest.raises(JudgeError, match="row 'r7' is text"):
        JudgePanel().ask(FakeJudge(["one"]), [Hypothesis(Utterance("r7", (), "one", 1.0), "one")])


# --- who sits on it


def test_judges_are_named_once() -> None:
    """The name in `judges` is the judge's; rewards and evaluation say it, and get the same instance."""
    judges: dict[str, Any] = {
        "asr": FakeJudge(["one two"]),
        "voice": FakeEncoder(),
        "other": FakeJudge(["one"]),
    }
    panel = JudgePanel(judges)
    assert [judge.name for judge in judges.values()] == ["asr", "voice", "other"]
    mix = RewardMix(
        [
            SpeechAccuracy("asr"),
            SpeechAccuracy("asr", "exp", name="exp"),
            SpeakerSimilarity("voice"),
        ]
    )
    assert mix.judges() == []
    mix.seat_judges(panel)
    assert mix.judges() == [judges["asr"], judges["voice"]]
    evaluation = SpeechEvaluation("asr", "other", "voice").with_panel(panel)
    assert list(evaluation.judges()) == [judges["asr"], judges["other"], judges["voice"]]

    samples = [said(prompt=sounding(1.0, 5)), said(prompt=sounding(1.0, 5))]
    mix.score([samples], panel)
    evaluation.new().update(samples)
    assert [judges[name].calls for name in judges] == [[2], [4], [2]]


def test_names_that_nobody_has_and_judges_of_another_kind() -> None:
    panel = JudgePanel({"asr": FakeJudge(["one"])})
    with pytest.raises(
        JudgeError, match=r"no judge has the name 'voice', only \['asr'\] are known; name it under"
    ):
        RewardMix([SpeakerSimilarity("voice")]).seat_judges(panel)
    with pytest.raises(
        JudgeError, match="judge 'asr' is a FakeJudge; expected a SpeakerEncoder here"
    ):
        RewardMix([SpeakerSimilarity("asr")]).seat_judges(panel)
    with pytest.raises(JudgeError, match="no judge has the name 'asr', only none are known"):
        SpeechEvaluation("asr").with_panel(JudgePanel())
    with pytest.raises(JudgeError, match="no judge has the name 'asr'"):
        SpeechEvaluation("asr").new().update([said()])
    with pytest.raises(ValueError, match="2 judges, but the name 'asr' comes more than once"):
        SpeechEvaluation("asr", "asr").with_panel(panel)


@pytest.mark.parametrize("kind", MAKERS)
def test_two_of_the_same_are_one_and_others_are_refused(kind: str, tmp_path: Path) -> None:
    folder = folder_of(kind, tmp_path)
    first, second, third = (MAKERS[kind](folder) for _ in range(3))
    panel = panel_of(FakeJudge(["one"]), first)
    assert panel.seat(second) is first
    assert panel.seat(first) is first
    with torch.no_grad():
        next(third.parameters()).flatten()[0] += 1.0
    with pytest.raises(
        JudgeError, match=rf"two judges have the name '{first.name}', but their weights differ"
    ):
        panel.seat(third)
    third.name = "other"
    assert panel.seat(third) is third
    second.batch_size = 7
    with pytest.raises(
        JudgeError, match=r"batch_size is 7 in one and \d+ in the other.*set init_args\.name"
    ):
        panel.seat(second)


def test_settings_that_change_what_is_heard_count(tmp_path: Path) -> None:
    source = folder_of("whisper", tmp_path)
    english, german = (
        TransformersJudge(source, "seq2seq", generate={"language": lang}) for lang in ("en", "de")
    )
    with pytest.raises(
        JudgeError, match=r"but generate is .*'de'.* in one and .*'en'.* in the other"
    ):
        panel_of(english, german)
    greedy, sampled = policy_judge(""), policy_judge("")
    sampled.decoding = Decoding(temperature=0.7)
    with pytest.raises(JudgeError, match=r"but decoding is Decoding\(temperature=0\.7"):
        panel_of(greedy, sampled)
    with pytest.raises(JudgeError, match="one is a FakeEncoder, the other a FakeJudge"):
        panel_of(FakeJudge(["one"]), FakeEncoder("fake"))


def test_rewards_that_were_given_one_judge_twice_have_one() -> None:
    judges = [FakeJudge(["one two"]) for _ in range(2)]
    mix = RewardMix([SpeechAccuracy(judges[0]), SpeechAccuracy(judges[1], "exp", name="bounded")])
    panel = JudgePanel()
    mix.seat_judges(panel)
    assert mix.judges() == judges[:1]
    mix.score([[said(), said()]], panel)
    assert [judge.calls for judge in judges] == [[2], []]
    with pytest.raises(JudgeError, match="two judges have the name 'fake', but transcripts is"):
        RewardMix(
            [SpeechAccuracy(FakeJudge(["a"])), SpeechAccuracy(FakeJudge(["b"]), name="bounded")]
        ).seat_judges(JudgePanel())
    with pytest.raises(JudgeError, match="one is a FakeEncoder, the other a FakeJudge"):
        RewardMix(
            [SpeechAccuracy(FakeJudge(["a"])), SpeakerSimilarity(FakeEncoder("fake"))]
        ).seat_judges(JudgePanel())


def test_a_mix_by_itself_asks_once_per_call() -> None:
    judge = FakeJudge(["one two"])
    mix = RewardMix([SpeechAccuracy(judge), SpeechAccuracy(judge, "exp", name="bounded")])
    mix.score([[said(), said()]])
    assert judge.calls == [2]


def test_an_evaluation_takes_the_judges_that_are_known() -> None:
    """The evaluation that was given stays as it is: another run may have it too."""
    own = FakeJudge(["one"]), FakeJudge(["two"], name="held-out"), FakeEncoder()
    evaluation = SpeechEvaluation(*own)
    known = [FakeEncoder(), FakeJudge(["one"])]
    other = evaluation.with_panel(panel_of(*known))
    assert list(other.judges()) == [known[1], own[1], known[0]]
    assert list(evaluation.judges()) == list(own)
    plain = AsrEvaluation()
    assert plain.with_panel(panel_of(*known)) is plain


# --- in YAML

MIX = """
mix:
  rewards:
    - class_path: lightning_audiorl.rewards.SpeechAccuracy
      init_args: {judge: asr}
    - class_path: SpeechAccuracy
      init_args:
        name: own
        judge: {class_path: lightning_audiorl.judges.CtcJudge, init_args: {folder: FOLDER, name: own}}
judges:
  asr: {class_path: CtcJudge, init_args: {folder: FOLDER}}
"""


def test_built_from_yaml(tmp_path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(RewardMix, "mix")
    parser.add_argument("--judges", type=dict[str, Judge])
    folder = speech.judge_folders(tmp_path)["judge"]
    built = parser.instantiate_classes(parser.parse_string(MIX.replace("FOLDER", str(folder))))
    panel = JudgePanel(built.judges)
    built.mix.seat_judges(panel)
    assert [judge.name for judge in built.mix.judges()] == ["asr", "own"]
    assert built.mix.judges()[0] is panel.judges["asr"]
