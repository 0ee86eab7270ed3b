"""Damaged checkpoints and folders: what loads is what was saved, and everything else is refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl.algorithms import SFT
from lightning_audiorl.models import content_hash
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy
from tests.damage import CHECKPOINTS, FOLDERS, outcome
from tests.models.families import POLICIES, SPECS, disturb, finetune_of, make

#: Damage after which the tensors are still those that were saved.
HARMLESS = {"no hash", "double precision", "sharded"}


def tensors_of(policy: CachedPromptPolicy) -> dict[str, Tensor]:
    return policy.state_dict()


def save_run(path: Path, family: str = "text_lm") -> CachedPromptPolicy:
    """A checkpoint as a run writes it after a step, its optimizer's state among it; the policy that it holds."""
    policy = POLICIES[family](SPECS[family], finetune_of(family, "last"))
    module = SFT(policy, num_steps=1)
    module.start_hash = content_hash(policy)
    disturb(policy)
    optimizer = torch.optim.AdamW(policy.trainable().values(), lr=1e-3)
    for parameter in policy.trainable().values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    checkpoint: dict[str, Any] = {
        "state_dict": module.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
    }
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return policy


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    path = tmp_path_factory.mktemp("run") / "step-000001.ckpt"
    return path, tensors_of(save_run(path))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Tensor]]]:
    made = {}
    for family in ("text_lm", "whisper", "fun_asr_nano"):
        policy = make(family)
        folder = tmp_path_factory.mktemp(family)
        policy.export(str(folder))
        made[family] = (folder, tensors_of(policy))
    return made


@pytest.mark.fault(
    "Starts and checkpoints",
    "a checkpoint damaged in one of 68 ways: cut, flipped bytes, foreign, tensors changed",
    "init_from refuses it in a short error with its path, or loads the very tensors that were saved",
)
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_damaged_checkpoint_is_no_start(
    kind: str, run: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    whole, tensors = run
    path = tmp_path / "damaged.ckpt"
    shutil.copyfile(whole, path)
    CHECKPOINTS[kind](path)
    found = outcome(lambda: tensors_of(POLICIES["text_lm"](str(path))), tensors, path)
    if kind in HARMLESS - {"double precision"}:
        assert found == "equal"
    elif not kind.startswith("byte at"):
        assert found == "refused"


@pytest.mark.fault(
    "Starts and checkpoints",
    "a model's folder damaged in one of 65 ways: files cut, emptied, foreign or missing, tensors changed",
    "the policy refuses it in a short error with its path, or loads the very tensors that were saved",
)
@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize(
    "family",
    [
        "text_lm",
        pytest.param("whisper", marks=pytest.mark.slow),
        pytest.param("fun_asr_nano", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_folder_is_no_start(
    family: str, kind: str, folders: dict[str, tuple[Path, dict[str, Tensor]]], tmp_path: Path
) -> None:
    whole, tensors = folders[family]
    folder = tmp_path / "damaged"
    shutil.copytree(whole, folder)
    FOLDERS[kind](folder)
    found = outcome(lambda: tensors_of(POLICIES[family](str(folder))), tensors, folder)
    # The tokenizers of these two know their special tokens without settings.
    has_defaults = family != "text_lm" and kind == "tokenizer_config.json without content"
    if kind in HARMLESS or has_defaults:
        assert found == "equal"
    elif not kind.startswith("header byte"):
        assert found == "refused"
