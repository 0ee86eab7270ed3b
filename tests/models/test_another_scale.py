"""A checkpoint of adapters is one of their scale, too, which is no tensor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_audiorl.engine.checkpointing import check_record
from lightning_audiorl.models import Finetune, content_hash
from tests.models.families import POLICIES, SPECS, disturb
from tests.models.test_loading import save_checkpoint

LORA = Finetune(projector=False, lm="lora", lora_rank=2, lora_targets=["q_proj"])


def check(checkpoint: dict[str, Any], finetune: Finetune, resumes: bool) -> None:
    """What is checked when a checkpoint is loaded into a policy with these settings."""
    policy = POLICIES["text_lm"](SPECS["text_lm"], finetune)
    losses = checkpoint["audiorl"]["losses"]
    keys = {f"policy.{name}" for name in policy.state_dict()}
    check_record(checkpoint, policy, "SFT", losses, None, "one.ckpt", resumes, keys)


@pytest.mark.fault(
    "Starts and checkpoints",
    "a checkpoint with adapters is gone on from, or evaluated, with another lora_alpha",
    "it is refused with both values: the adapters would be scaled otherwise, and be another model",
)
def test_adapters_of_another_scale_are_refused(tmp_path: Path) -> None:
    policy = POLICIES["text_lm"](SPECS["text_lm"], LORA)
    start_hash = content_hash(policy)
    disturb(policy, 0.3)
    path = save_checkpoint(policy, tmp_path / "one.ckpt", start_hash)
    checkpoint = torch.load(path, weights_only=True)

    for resumes in (True, False):
        check(checkpoint, replace(LORA, lora_dropout=0.1), resumes)
        with pytest.raises(ValueError, match=r"one\.ckpt.*lora_alpha 32.*lora_alpha 64"):
            check(checkpoint, replace(LORA, lora_alpha=64), resumes)

    # Earlier builds did not write it down.
    del checkpoint["audiorl"]["finetune"]
    check(checkpoint, replace(LORA, lora_alpha=64), resumes=True)
