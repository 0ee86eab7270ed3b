"""The shipped configuration of each family that speaks, with tiny checkpoints for the published ones: it trains."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from lightning_audiorl.models import SampleKey
from lightning_audiorl.models.finetune import lora_layers
from lightning_audiorl.models.reference import content_hash
from lightning_audiorl.rewards import Reward
from lightning_audiorl.token2text import Token2Text
from lightning_audiorl.types import Decoding, Hypothesis
from tests.command import class_of, run, write_rows
from tests.data.fakes import write_tone
from tests.judges.test_pretrained import ctc_folder
from tests.models.tts_records import (
    NUM_CODES,
    TTS_RECORDS,
    ToneVoice,
    batch_of,
    codec_folder,
    make,
    start_folder,
)
from tests.test_family_configs import run_in_process
from tests.test_llasa_configs import whisper
from tests.test_resume import assert_same_checkpoints

FAMILIES = list(TTS_RECORDS)
#: CSM speaks several codes at once.
ONE_CODE = [family for family in FAMILIES if family != "csm"]
# Three language models over text and codes go the same road.
IN_TURN = [
    pytest.param(family, marks=pytest.mark.slow) if family in ("llasa", "neutts") else family
    for family in FAMILIES
]
CONFIGS = Path(__file__).parents[1] / "configs"
JUDGES = {
    "openai/whisper-large-v3-turbo": whisper,
    "facebook/wav2vec2-large-960h-lv60-self": ctc_folder,
}
TEXTS = ["one", "two three", "three", "one one two", "two", "three zero"]
SHORT = {"min_cap": 6, "max_new_tokens": 6}


class ShareOfLow(Reward):
    """How many of the codes are below 8; 0 where nothing is said."""

    range = (0.0, 1.0)

    def __init__(self, weight: float = 1.0, name: str = "share_of_low") -> None:
        super().__init__(weight, name)

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        shares = []
        for hypothesis in hypotheses:
            codes = [] if hypothesis.speech is None else hypothesis.speech.codes.tolist()
            low = sum(code < 8 for code in codes)
            shares.append(low / len(codes) if codes else 0.0)
        return shares


@pytest.fixture(autouse=True)
def _codec_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class that cosyvoice2.yaml leaves to the user."""
    monkeypatch.setitem(sys.modules, "my_codec", SimpleNamespace(MyCosyVoice2=ToneVoice))


@cache
def places(root: Path) -> dict[str, str]:
    """What the configurations name -> tiny ones in folders."""
    found = {}
    for number, (source, build) in enumerate(JUDGES.items()):
        (root / str(number)).mkdir()
        found[source] = build(root / str(number))
    found["hf-audio/xcodec2"] = codec_folder("xcodec2", root / "xcodec2")
    found["neuphonic/neucodec"] = codec_folder("neucodec", root / "neucodec")
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("judges")


def manifest(folder: Path, rate_hz: int) -> str:
    """Six texts, each with a tone for a speaker prompt."""
    rows = []
    for number, text in enumerate(TEXTS):
        write_tone(folder / f"{number}.wav", 0.3 + 0.1 * number, rate_hz, hz=200.0 + 100 * number)
        rows.append(
            {"audio_filepath": f"{number}.wav", "text": text, "prompt_text": "two", "duration": 0.3}
        )
    return str(write_rows(folder / "train.jsonl", rows))


def shrunk(family: str, root: Path, folder: Path, **model: Any) -> dict[str, Any]:
    """The shipped settings with tiny checkpoints, six rows, and a run of two steps on a CPU."""
    text = (CONFIGS / f"{family}.yaml").read_text()
    for source, place in places(root).items():
        text = text.replace(source, place)
    config: dict[str, Any] = yaml.safe_load(text)
    config["trainer"] |= {"accelerator": "cpu", "default_root_dir": str(folder / "run")}
    config["report"] = {"enabled": False}

    settings = config["model"]["init_args"]
    settings["policy"]["init_args"]["init_from"] = str(start_folder(family))
    settings |= {"num_steps": 2, "group_size": 2, "decoding": SHORT} | model
    settings["eval_decodings"] = {"greedy": {"decoding": SHORT | {"temperature": 0.0}}}

    rows = manifest(folder, TTS_RECORDS[family].rate_hz)
    data = {"batch_size": 3, "num_workers": 0, "train": rows, "val": {"dev": rows}}
    # Tones of a third of a second are no speaker prompts otherwise.
    config["data"]["init_args"] |= data | {"prompt_s": [0.2, 5.0]}
    return config


@pytest.mark.cell("GRPO")
@pytest.mark.parametrize("family", IN_TURN)
def test_a_tiny_checkpoint_takes_two_steps(family: str, root: Path, tmp_path: Path) -> None:
    assert len((CONFIGS / f"{family}.yaml").read_text().splitlines()) < 25
    config = shrunk(family, root, tmp_path)
    # Tiny judges may write the same of all that a tiny codec makes: groups differ at least in what is spoken.
    differs = class_of("tests.test_tts_configs.ShareOfLow")
    config["model"]["init_args"]["rewards"]["rewards"].append(differs)
    module = run(tmp_path, config).model
    assert module.rl_step == 2
    assert list(lora_layers(module.policy))
    assert module.step_metrics["reward_failures/speech_accuracy"] == 0
    results = module.evaluations[-1]["results"]["dev"]
    assert results["cer"] > 0
    assert results["judge_failure_rate"] == 0

    # What it leaves behind is a checkpoint of the family, with a card.
    exported = tmp_path / "run" / "export"
    types = [
        json.loads((folder / "config.json").read_text())["model_type"]
        for folder in (exported, start_folder(family))
    ]
    assert types[0] == types[1]
    TTS_RECORDS[family].policy(str(exported))
    card = (exported / "README.md").read_text()
    assert "pipeline_tag: text-to-speech" in card
    assert module.policy.usage in card


@pytest.mark.cell("DiffRO")
@pytest.mark.parametrize("family", ONE_CODE)
def test_the_gradient_of_token2text_reaches_the_policy(
    family: str, root: Path, tmp_path: Path
) -> None:
    codec = content_hash(make(family).codec)
    sizes: dict[str, Any] = {"width": 16, "dilations": (1,), "heads": 2, "decoder_layers": 1}
    network = Token2Text(NUM_CODES, "abcdefghijklmnopqrstuvwxyz ", codec_hash=codec, **sizes)
    network.save(str(tmp_path / "token2text"))

    config = shrunk(family, root, tmp_path, num_steps=1)
    config["model"]["class_path"] = "DiffRO"
    settings = config["model"]["init_args"]
    mix = class_of("rewards.DifferentiableMix", token2text=str(tmp_path / "token2text"))
    for name in ("judges", "rewards", "evaluation", "eval_decodings"):
        settings.pop(name)
    settings["differentiable"] = mix
    config["data"]["init_args"].pop("val")
    config["trainer"]["num_sanity_val_steps"] = 0
    module = run(tmp_path, config).model
    assert module.rl_step == 1
    assert module.step_metrics["grad_norm"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_killed_and_resumed_is_the_whole_run(family: str, root: Path, tmp_path: Path) -> None:
    runs = {}
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        config = shrunk(family, root, folder, num_steps=5)
        # The same rows, since a checkpoint names them.
        rows = str(tmp_path / "whole" / "train.jsonl")
        differs = class_of("tests.test_tts_configs.ShareOfLow")
        config["model"]["init_args"]["rewards"]["rewards"].append(differs)
        config["data"]["init_args"] |= {"train": rows, "val": {"dev": rows}}
        config["checkpoint"] = {"every_n_steps": 2}
        runs[name] = (folder, config)

    assert run_in_process(*runs["whole"]) == 0
    assert run_in_process(*runs["killed"], kill=True) == -signal.SIGKILL
    assert run_in_process(*runs["killed"], "--ckpt_path", "last") == 0
    assert_same_checkpoints(
        *(tmp_path / name / "run" / "checkpoints" / "last.ckpt" for name in ("whole", "killed"))
    )
    weights = [
        (tmp_path / name / "run" / "export" / "model.safetensors").read_bytes()
        for name in ("whole", "killed")
    ]
    assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_toy_reward_rises(family: str, root: Path, tmp_path: Path) -> None:
    """Paid for every low code among those that learn, it says more of them after 20 steps."""
    rewards = {"rewards": [class_of("tests.test_tts_configs.ShareOfLow")]}
    config = shrunk(family, root, tmp_path, num_steps=20, group_size=8, rewards=rewards, beta=0.01)
    config["trainer"] |= {"precision": "32-true", "val_check_interval": 20}
    settings = config["model"]["init_args"]
    settings["optim"] = {"lr": 0.003}
    settings["policy"]["init_args"]["finetune"] = {"projector": False}
    before = share_of_low(family, make(family, lively=False))
    after = share_of_low(family, run(tmp_path, config).model.policy)
    assert after > before + 0.2


def share_of_low(family: str, policy: Any) -> float:
    """Mean over what it says of three texts."""
    batch = batch_of(family, ["a", "b", "c"])
    context = policy.encode(batch)
    rollout = policy.sample(context, 16, Decoding(max_new_tokens=6), SampleKey(0, 0))
    spoken = [speech for group in policy.decode(rollout, context) for speech in group]
    hypotheses = [Hypothesis(batch.rows[0], "", speech=speech) for speech in spoken]
    return sum(ShareOfLow().score(hypotheses)) / len(hypotheses)
