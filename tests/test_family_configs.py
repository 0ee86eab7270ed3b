"""The shipped configuration of each family, with a tiny checkpoint for the published one: it trains, and goes on."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_audiorl.models import DIGIT_WORDS, SampleKey
from lightning_audiorl.models.finetune import lora_layers
from lightning_audiorl.types import Decoding, Hypothesis
from tests.command import class_of, run, write_manifest
from tests.kills import Point, arm
from tests.models.families import POLICIES, SPECS, batch_of
from tests.models.records import RECORDS
from tests.test_resume import assert_same_checkpoints
from tests.toy_reward import ShareOfTwo

FAMILIES = ["fun_asr_nano", "whisper", *RECORDS]
# These have tests of their configurations elsewhere, too.
OTHERS = ("fun_asr_nano", "whisper", "qwen2_audio")
IN_TURN = [
    pytest.param(family, marks=pytest.mark.slow) if family in OTHERS else family
    for family in FAMILIES
]
CONFIGS = Path(__file__).parents[1] / "configs"


def tiny_folder(family: str, folder: Path) -> Path:
    """A checkpoint of the family that knows the words of the manifest."""
    spec: Any = SPECS[family]
    model, processor = replace(spec, words=tuple(DIGIT_WORDS)).build()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def shrunk(family: str, folder: Path, **model: Any) -> dict[str, Any]:
    """The shipped settings with a tiny checkpoint, six tones, and a run of two steps on a CPU."""
    config: dict[str, Any] = yaml.safe_load((CONFIGS / f"{family}.yaml").read_text())
    config["trainer"] |= {"accelerator": "cpu", "default_root_dir": str(folder / "run")}
    config["report"] = {"enabled": False}

    settings = config["model"]["init_args"]
    policy = settings["policy"]["init_args"]
    policy["init_from"] = str(tiny_folder(family, folder / "start"))
    settings["decoding"]["max_new_tokens"] = 4
    settings["eval_decodings"] = {"greedy": {"decoding": {"temperature": 0.0, "max_new_tokens": 4}}}
    settings |= {"num_steps": 2, "group_size": 2} | model

    manifest = str(write_manifest(folder))
    config["data"]["init_args"] |= {
        "batch_size": 4,
        "num_workers": 0,
        "train": manifest,
        "val": {"dev": manifest},
    }
    return config


@pytest.mark.cell("GRPO")
@pytest.mark.parametrize("family", IN_TURN)
def test_a_tiny_checkpoint_takes_two_steps(family: str, tmp_path: Path) -> None:
    assert len((CONFIGS / f"{family}.yaml").read_text().splitlines()) < 25
    module = run(tmp_path, shrunk(family, tmp_path)).model
    assert module.rl_step == 2
    assert type(module.policy) is POLICIES[family]
    assert list(lora_layers(module.policy))
    assert module.evaluations[-1]["results"]["dev"]["wer"] > 0

    # What it leaves behind is a checkpoint of the family.
    exported = tmp_path / "run" / "export"
    config = json.loads((exported / "config.json").read_text())
    assert (
        config["model_type"]
        == json.loads((tmp_path / "start/config.json").read_text())["model_type"]
    )
    POLICIES[family](str(exported))


def run_in_process(folder: Path, config: dict[str, Any], *args: str, kill: bool = False) -> int:
    """The exit code of a run in a forked process; a negative one is the signal that ended it."""

    def target() -> None:
        if kill:
            arm(Point("engine.update:Updater.clip_and_step", nth=4))
        run(folder, config, *args)

    process = get_context("fork").Process(target=target)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_killed_and_resumed_is_the_whole_run(family: str, tmp_path: Path) -> None:
    runs = {}
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        config = shrunk(family, folder, num_steps=5)
        # The same start and rows, since a checkpoint names them.
        init_args = config["model"]["init_args"]["policy"]["init_args"]
        init_args["init_from"] = str(tmp_path / "whole" / "start")
        manifest = str(tmp_path / "whole" / "train.jsonl")
        config["data"]["init_args"] |= {"train": manifest, "val": {"dev": manifest}}
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
def test_a_toy_reward_rises(family: str, tmp_path: Path) -> None:
    """Paid for every "two" among its words, it says more of them after 20 steps."""
    rewards = {"rewards": [class_of("tests.toy_reward.ShareOfTwo")]}
    optim = {"lr": 0.01}
    config = shrunk(
        family, tmp_path, num_steps=20, group_size=8, rewards=rewards, optim=optim, beta=0.01
    )
    config["trainer"] |= {"precision": "32-true", "val_check_interval": 20}
    config["model"]["init_args"]["policy"]["init_args"]["finetune"] = {"projector": False}
    start = POLICIES[family](config["model"]["init_args"]["policy"]["init_args"]["init_from"])
    before = share_of_two(start)
    after = share_of_two(run(tmp_path, config).model.policy)
    assert after > before + 0.2


def share_of_two(policy: Any) -> float:
    """Mean over what it says of three clips."""
    context = policy.encode(batch_of(["a", "b", "c"], [0.4, 0.5, 0.6]))
    rollout = policy.sample(context, 16, Decoding(max_new_tokens=4), SampleKey(0, 0))
    rows = batch_of(["a"]).rows
    texts = [text for group in policy.decode(rollout, context) for text in group]
    shares = ShareOfTwo().score([Hypothesis(rows[0], text) for text in texts])
    return sum(shares) / len(shares)
