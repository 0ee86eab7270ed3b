"""The language model by itself: its own class in transformers takes it as it is, and computes the same."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from lightning_audiorl.models.decoding.decoder_only import DecoderOnlyPolicy
from lightning_audiorl.models.decoding.served import (
    SERVED_CLASSES,
    num_served,
    require_servable,
    served_config,
    served_weights,
)
from lightning_audiorl.models.finetune import Finetune
from tests.helpers import assert_close
from tests.models.families import POLICIES, SPECS, batch_of, disturb, make

CASES = [
    *(("fun_asr_nano", mode) for mode in ("all", "last", "lora", "projector")),
    ("text_lm", "lora"),
    *((name, "all") for name in ("speech_lm", "qwen2_audio", "qwen3_asr", "glm_asr", "voxtral")),
]


def logits_by_itself(policy: DecoderOnlyPolicy, prompts: torch.Tensor) -> torch.Tensor:
    """Of the language model's own class, filled with what is served."""
    config = served_config(policy, "float32")
    assert config.architectures == [SERVED_CLASSES[config.model_type]]
    model = AutoModelForCausalLM.from_config(config).eval()
    assert type(model).__name__ == config.architectures[0]
    # Every name, and no other.
    model.load_state_dict(served_weights(policy), strict=True)
    return model(inputs_embeds=prompts).logits[:, -1]


@pytest.mark.parametrize(("family", "mode"), CASES)
@torch.no_grad()
def test_its_own_class_computes_the_same(family: str, mode: str) -> None:
    policy = require_servable(make(family, mode))
    disturb(policy)
    context = policy.encode(batch_of(["a"]))
    own = policy.output(policy.prefill(context).hidden)
    prompts, _ = policy.prompt(context, "right")
    assert_close(logits_by_itself(policy, prompts), own, "policy")
    assert num_served(policy) == sum(value.numel() for value in served_weights(policy).values())


@torch.no_grad()
def test_an_adapter_on_the_embedding_leaves_the_head_alone() -> None:
    finetune = Finetune(projector=False, lm="lora", lora_targets=["q_proj", "embed_tokens"])
    policy = require_servable(POLICIES["text_lm"](SPECS["text_lm"], finetune).eval())
    names = set(served_weights(policy))
    disturb(policy, scale=0.3)
    weights = served_weights(policy)
    assert set(weights) == names
    assert not torch.equal(weights["model.embed_tokens.weight"], weights["lm_head.weight"])

    context = policy.encode(batch_of(["a"]))
    own = policy.output(policy.prefill(context).hidden)
    prompts, _ = policy.prompt(context, "right")
    assert_close(logits_by_itself(policy, prompts), own, "policy")
