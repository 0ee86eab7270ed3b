"""LoRA without a list of targets goes to the layers that the family calls its own."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lightning_audiorl.models import Finetune, content_hash
from lightning_audiorl.models.finetune import lora_layers
from lightning_audiorl.weights.checkpoints import read_checkpoint
from tests.models.families import POLICIES, SPECS, disturb
from tests.models.test_loading import save_checkpoint

LORA = Finetune(projector=False, lm="lora", lora_rank=2)
LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WHISPER = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
ENCODER_DECODER = ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"]
TARGETS = {
    **dict.fromkeys(POLICIES, LLAMA),
    "whisper": WHISPER,
    **dict.fromkeys(("canary", "moonshine"), ENCODER_DECODER),
}


@pytest.mark.parametrize("family", list(POLICIES))
def test_each_family_has_targets_of_its_own(family: str) -> None:
    policy = POLICIES[family](SPECS[family], LORA)
    named = POLICIES[family](SPECS[family], replace(LORA, lora_targets=TARGETS[family]))
    assert policy.finetune == named.finetune
    assert content_hash(policy) == content_hash(named)
    # Every linear layer of the two decoder layers, those of their cross-attentions among them.
    assert len(list(lora_layers(policy))) == 2 * (7 if TARGETS[family] == LLAMA else 10)


def test_a_checkpoint_says_which_layers_have_adapters(tmp_path: Path) -> None:
    policy = POLICIES["whisper"](SPECS["whisper"], LORA)
    before = content_hash(policy)
    disturb(policy)
    path = save_checkpoint(policy, tmp_path / "last.ckpt", before)
    recorded = read_checkpoint(path)["audiorl"]["finetune"]
    assert recorded == asdict(replace(LORA, lora_targets=WHISPER))
    merged = POLICIES["whisper"](path)
    assert not list(lora_layers(merged))


def test_targets_that_are_given_stay() -> None:
    policy = POLICIES["whisper"](SPECS["whisper"], replace(LORA, lora_targets=["fc1"]))
    assert policy.finetune.lora_targets == ["fc1"]
    assert len(list(lora_layers(policy))) == 2
