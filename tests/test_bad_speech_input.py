"""Bad input of speech synthesis on its way through Trainer or command line: what, where, and how to mend it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lightning import Trainer
from torch import Tensor

from lightning_audiorl.algorithms import GRPO, EvalDecoding
from lightning_audiorl.data import (
    AudioError,
    ManifestError,
    SpeechManifest,
    Subset,
    Texts,
    TextSpeech,
    TtsDataModule,
)
from lightning_audiorl.judges import AsrJudge
from lightning_audiorl.models import SpeechLMPolicy
from lightning_audiorl.rewards import RewardError, RewardMix, SpeakerSimilarity, SpeechAccuracy
from lightning_audiorl.types import Utterance
from tests import speech
from tests.command import class_of, run, write_rows
from tests.data.fakes import write_tone
from tests.judges.fakes import FakeEncoder, said

RATE_HZ = speech.RATE_HZ
GOOD = {
    "text": "one two",
    "speaker": "ann",
    "audio_filepath": "good.wav",
    "prompt_text": "two",
    "duration": 0.4,
}


class Deaf(AsrJudge):
    """Returns what it is told to, whatever it hears."""

    def __init__(self, returns: Any) -> None:
        super().__init__("deaf", RATE_HZ)
        self.returns = returns

    def listen(self, waveforms: list[Tensor], rows: list[Utterance]) -> Any:
        return (
            self.returns
            if self.returns in (None, [])
            else [None if self.returns == "None" else ""] * len(waveforms)
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Speaker prompts of every kind."""
    for name, seconds in {"good": 0.5, "short": 0.25, "long": 4.0}.items():
        write_tone(tmp_path / f"{name}.wav", seconds, RATE_HZ)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE_HZ, dtype="float32"), RATE_HZ)
    return tmp_path


def train(data: Any, judge: AsrJudge | None = None, **settings: Any) -> GRPO:
    """Two steps on rows, or on a manifest."""
    rewards = RewardMix([SpeechAccuracy(judge or Deaf(""))], **settings.pop("mix", {}))
    greedy = {"greedy": EvalDecoding(speech.GREEDY)}
    policy = SpeechLMPolicy(speech.LM, speech.TinyCodec(speech.CODEC))
    module = GRPO(
        policy, 2, rewards=rewards, group_size=2, decoding=speech.SAMPLED, eval_decodings=greedy
    )
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
    }
    settings = {"batch_size": 2, "sample_rate_hz": RATE_HZ, "train": data} | settings
    Trainer(accelerator="cpu", max_epochs=1, **quiet).fit(
        module, datamodule=TtsDataModule(**settings)
    )
    return module


def manifest(folder: Path, **bad: Any) -> str:
    """A good row and, in line 2, one with other fields."""
    return str(write_rows(folder / "rows.jsonl", [GOOD, GOOD | bad]))


def test_an_unknown_speaker(folder: Path) -> None:
    prompts = SpeechManifest(manifest(folder))
    texts = write_rows(folder / "texts.jsonl", [{"id": "t1", "text": "one", "speaker": "theo"}])
    message = r"row 't1': unknown speaker 'theo'; the prompts have ann\. Name one of them, or add a prompt"
    with pytest.raises(ValueError, match=message):
        train([Subset(TextSpeech(Texts(str(texts)), prompts))])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"audio_filepath": "short.wav"},
            r"short\.wav is 0\.25 s long, want 0\.3 to 30 s; .*set data\.init_args\.prompt_s",
        ),
        (
            {"audio_filepath": "silent.wav"},
            r"silent\.wav is silent \(-120 dB .*; give another prompt, or none",
        ),
        ({"audio_filepath": "gone.wav"}, r"no such file: .*gone\.wav"),
    ],
    ids=["short", "silent", "gone"],
)
def test_speaker_prompts_that_no_voice_can_be_taken_from(
    folder: Path, bad: dict[str, Any], message: str
) -> None:
    with pytest.raises(
        (AudioError, ManifestError),
        match=rf"(row 'rows:2.*|line 2, .*field `audio_filepath`: ){message}",
    ):
        train(manifest(folder, **bad))


def test_limits_of_speaker_prompts_are_the_users(folder: Path) -> None:
    """FSDD's prompts are that short: the setting that the error names lets them through, up to the policy's own."""
    assert train(manifest(folder, audio_filepath="short.wav"), prompt_s=(0.2, 30.0)).rl_step == 2
    long = manifest(folder, audio_filepath="long.wav")
    with pytest.raises(
        AudioError, match=r"row 'rows:2.*long\.wav is 4\.00 s long, want 0\.3 to 3 s; .*prompt_s"
    ):
        train(long, prompt_s=(0.3, 3.0))
    write_tone(folder / "short.wav", 0.1, RATE_HZ)
    with pytest.raises(
        ValueError,
        match=r"row 'rows:2.*prompt of 0\.100 s; .*set policy\.init_args\.limits \(min_pro",
    ):
        train(manifest(folder, audio_filepath="short.wav"), prompt_s=(0.0, 30.0))


def test_text_with_characters_outside_the_vocabulary(folder: Path) -> None:
    path = manifest(folder, text="one 2")
    with pytest.raises(
        ValueError,
        match=r"row 'rows:2.*text 'one 2' is outside the .*vocabulary \(\['2'\]\); normalise",
    ):
        train(path)
    with pytest.raises(
        ValueError,
        match=r"row 'rows:2.*text 'one 2' has '2' \(U\+0032, DIGIT TWO\) at place 5, outside",
    ):
        train(path, charset="enotw ")
    with pytest.raises(ManifestError, match=r"rows\.jsonl, line 2, field `text`: .*is empty"):
        train(manifest(folder, text=" "))


def test_codec_and_language_model_that_do_not_match(folder: Path) -> None:
    """A codec of 20 codes for a language model of 16; a codec of another rate than the data."""
    sizes = {"num_codes": 16, "words": ["one", "two"], "width": 16, "layers": 1, "heads": 2}
    path = manifest(folder)

    def config(levels: list[int], rate_hz: int) -> dict[str, Any]:
        small = {"num_mels": 24, "n_fft": 256, "width": 16, "layers": 1, "iterations": 2}
        tiny = class_of("codecs.TinyCodecConfig", levels=levels, sample_rate_hz=RATE_HZ, **small)
        policy = class_of(
            "models.SpeechLMPolicy",
            init_from=class_of("models.TinySpeechLM", **sizes),
            codec=class_of("codecs.TinyCodec", init_from=tiny),
        )
        data = class_of(
            "data.speech.TtsDataModule",
            batch_size=2,
            sample_rate_hz=rate_hz,
            train=path,
            val={"v": path},
        )
        model = class_of("algorithms.SFT", policy=policy, num_steps=1)
        trainer = {"accelerator": "cpu", "logger": False, "default_root_dir": str(folder)}
        return {"seed_everything": 0, "trainer": trainer, "model": model, "data": data}

    message = r"^PlainTemplate: the codec has 20 codes, .*tokenizer 16 speech tokens .*; give the codec that the"
    with pytest.raises(ValueError, match=message):
        run(folder, config([4, 5], RATE_HZ))
    with pytest.raises(
        ValueError,
        match=r"the codec wants 8000 Hz audio, got 16000; set sample_rate_hz of the data",
    ):
        run(folder, config([4, 4], 16000))


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        (
            "None",
            r"failed on all 4 samples .*judge 'deaf' \(Deaf\) returned nothing for any sample; .*row 'rows:",
        ),
        (
            None,
            r"failed on all 4 samples .*judge 'deaf' \(Deaf\) returned nothing .*try it by itself on a recording",
        ),
        (
            [],
            r"failed on all 4 samples .*judge 'deaf' gave 0 answers to 1 clips; expected one each",
        ),
    ],
    ids=["no transcript", "no list", "empty list"],
)
def test_a_judge_that_returns_nothing_stops_the_run(
    folder: Path, returns: Any, message: str
) -> None:
    with pytest.raises(RewardError, match=message):
        train(manifest(folder), Deaf(returns))
    with pytest.raises(RewardError, match="judge 'deaf'"):
        train(manifest(folder), Deaf(returns), mix={"on_error": "raise"})


def test_a_judge_that_hears_nothing_is_no_failure_but_the_worst_score(folder: Path) -> None:
    module = train(manifest(folder), Deaf(""))
    assert module.step_metrics["reward/speech_accuracy/mean"] == 0.0
    assert module.step_metrics["reward_failures/speech_accuracy"] == 0
    assert module.step_metrics["zero_variance_share"] == 1.0
    assert module.step_metrics["skipped_updates"] == 1.0


def test_an_encoder_that_returns_nothing_is_named() -> None:
    """By every reward that asks a judge."""
    broken = SpeakerSimilarity(FakeEncoder("mute", broken_at=0.0))
    with pytest.raises(
        RewardError, match=r"judge 'mute' \(FakeEncoder\) returned nothing for any sample"
    ):
        RewardMix([broken]).score([[said(prompt=torch.zeros(400)) for _ in range(2)]])
