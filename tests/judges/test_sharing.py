from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

from lightning_audiorl.judges import (
    CtcJudge,
    EcapaEncoder,
    Judge,
    JudgeError,
    PolicyJudge,
    TransformersJudge,
    TransformersSpeakerEncoder,
    shared,
)
from lightning_audiorl.metrics import AsrEvaluation, SpeechEvaluation
from lightning_audiorl.models import FunAsrNanoPolicy, TinyFunAsrNano, TinyWhisper
from lightning_audiorl.models.tiny.asr import build_whisper
from lightning_audiorl.rewards import RewardMix, SpeakerSimilarity, SpeechAccuracy
from lightning_audiorl.types import Decoding
from tests import speech
from tests.judges.fakes import FakeEncoder, FakeJudge, said
from tests.judges.test_pretrained import SMALL_WAVE, ctc_folder


def folder_of(kind: str, folder: Path) -> str:
    if kind == "ctc":
        return ctc_folder(folder)
    if kind == "whisper":
        model, processor = build_whisper(TinyWhisper(words=("one",), width=16, encoder_layers=1, decoder_layers=1))
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    if kind == "wavlm":
        sizes: dict[str, Any] = {"tdnn_dim": (8,), "tdnn_kernel": (3,), "tdnn_dilation": (1,), "xvector_output_dim": 6}
        WavLMForXVector(WavLMConfig(**SMALL_WAVE, **sizes)).save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    return str(folder)


def policy_judge(folder: str, **settings: Any) -> PolicyJudge:
    return PolicyJudge(FunAsrNanoPolicy(TinyFunAsrNano(words=("one",), width=16, encoder_layers=1, lm_layers=1)))


MAKERS: dict[str, Callable[[str], Judge]] = {
    "ours": lambda folder: CtcJudge(str(speech.judge_folders(Path(folder))["judge"])),
    "ecapa": lambda folder: EcapaEncoder(str(speech.judge_folders(Path(folder))["encoder"])),
    "policy": policy_judge,
    "ctc": lambda folder: TransformersJudge(folder, "ctc"),
    "whisper": lambda folder: TransformersJudge(folder, "seq2seq", generate={"task": "transcribe"}),
    "wavlm": TransformersSpeakerEncoder,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_two_of_the_same_are_one_and_others_are_refused(kind: str, tmp_path: Path) -> None:
    folder = folder_of(kind, tmp_path)
    first, second, third = (MAKERS[kind](folder) for _ in range(3))
    assert shared(second, [FakeJudge(["one"]), torch.nn.Linear(1, 1), first]) is first
    assert shared(first, [first]) is first
    with torch.no_grad():
        next(third.parameters()).flatten()[0] += 1.0
    with pytest.raises(JudgeError, match=rf"two judges have the name '{first.name}', but their weights differ"):
        shared(third, [first])
    third.name = "other"
    assert shared(third, [first]) is third
    second.batch_size = 7
    with pytest.raises(JudgeError, match=r"batch_size is 7 in one and \d+ in the other.*set init_args\.name"):
        shared(second, [first])


def test_settings_that_change_what_is_heard_count(tmp_path: Path) -> None:
    source = folder_of("whisper", tmp_path)
    english, german = (TransformersJudge(source, "seq2seq", generate={"language": lang}) for lang in ("en", "de"))
    with pytest.raises(JudgeError, match=r"but generate is .*'de'.* in one and .*'en'.* in the other"):
        shared(german, [english])
    greedy, sampled = policy_judge(""), policy_judge("")
    sampled.decoding = Decoding(temperature=0.7)
    with pytest.raises(JudgeError, match=r"but decoding is Decoding\(temperature=0\.7"):
        shared(sampled, [greedy])
    with pytest.raises(JudgeError, match="one is a FakeEncoder, the other a FakeJudge"):
        shared(FakeEncoder("fake"), [FakeJudge(["one"])])


def test_rewards_that_name_one_judge_have_one() -> None:
    judges = [FakeJudge(["one two"]) for _ in range(2)]
    mix = RewardMix([SpeechAccuracy(judges[0]), SpeechAccuracy(judges[1], "exp", name="bounded")])
    assert mix.judges() == judges[:1]
    mix.score([[said(), said()]])
    assert [judge.calls for judge in judges] == [[2], []]
    with pytest.raises(JudgeError, match="two judges have the name 'fake', but transcripts is"):
        RewardMix([SpeechAccuracy(FakeJudge(["a"])), SpeechAccuracy(FakeJudge(["b"]), name="bounded")])
    with pytest.raises(JudgeError, match="one is a FakeEncoder, the other a FakeJudge"):
        RewardMix([SpeechAccuracy(FakeJudge(["a"])), SpeakerSimilarity(FakeEncoder("fake"))])


def test_an_evaluation_takes_the_judges_that_are_known() -> None:
    """The evaluation that was given stays as it is: another run may have it too."""
    own = FakeJudge(["one"]), FakeJudge(["two"], name="held-out"), FakeEncoder()
    evaluation = SpeechEvaluation(*own)
    known = [FakeEncoder(), FakeJudge(["one"])]
    other = evaluation.with_judges(known)
    assert list(other.judges()) == [known[1], own[1], known[0]]
    assert list(evaluation.judges()) == list(own)
    plain = AsrEvaluation()
    assert plain.with_judges(known) is plain
