"""Granite-Speech: its own adapter is part of it, its batch norm stands still, its prompt is that of any day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GraniteForCausalLM, GraniteSpeechForConditionalGeneration

from lightning_audiorl.models import Finetune, GraniteSpeechPolicy, Reference
from tests.helpers import assert_close
from tests.models.families import SPECS, batch_of, clip, disturb, log_probs, make, random_rollout
from tests.models.records import RECORDS
from tests.models.test_adapter_starts import adapted
from tests.models.test_export import decode_of_record, greedy

WEIGHTS = "adapter_model.safetensors"
NAMES = ["a", "b", "c"]


def logits(model: Any, processor: Any, name: str, tokens: list[int]) -> Tensor:
    """Of the tokens behind the prompt of a clip, by the forward of the class."""
    inputs = RECORDS["granite_speech"].ask(processor, clip(name, 0.8).numpy())
    ids = torch.cat([inputs.pop("input_ids"), torch.tensor([tokens])], dim=1)
    inputs["attention_mask"] = torch.ones_like(ids)
    with torch.no_grad():
        return model(input_ids=ids, **inputs).logits[0, -len(tokens) - 1 :]


@pytest.mark.fault(
    "Starts and checkpoints",
    "a folder of Granite-Speech, whose adapter its class switches off by a call without audio and does not save",
    "the adapter is merged: on in rollout, reference and update, and in the export, which loads whole",
)
@pytest.mark.parametrize("names", ["of today", "of earlier releases"])
def test_its_own_adapter_stays_on(names: str, tmp_path: Path) -> None:
    folder = tmp_path / "start"
    tuned = adapted(folder, "granite_speech", ["v_proj", "o_proj"])
    if names == "of earlier releases":
        before = load_file(folder / WEIGHTS)
        moved = {
            name.replace("model.language_model.layers", "language_model.model.layers"): value
            for name, value in before.items()
        }
        assert moved.keys().isdisjoint(before)
        save_file(moved, folder / WEIGHTS, metadata={"format": "pt"})

    lora = Finetune(projector=False, lm="lora", lora_rank=2)
    policy = GraniteSpeechPolicy(str(folder), lora).eval()
    tokens = [6, 7, 5]
    with_adapter = logits(tuned, policy.processor, "a", tokens)
    assert_close(logits(policy.model, policy.processor, "a", tokens), with_adapter, "policy")
    with tuned.disable_adapter():
        without = logits(tuned, policy.processor, "a", tokens)
    assert (with_adapter - without).abs().max() > 0.01

    # The reference is the start, its adapter among it.
    reference = Reference(policy)
    context, rollout = policy.encode(batch_of(NAMES)), random_rollout(policy, 3, 2)
    with torch.no_grad():
        start = log_probs(policy, context, rollout)
        disturb(policy, 0.2)
        with reference.swapped_in(policy):
            assert torch.equal(log_probs(policy, context, rollout), start)

    # transformers alone says what the policy says, also after a call without audio, and after it saved what it loaded.
    policy.export(str(tmp_path / "out"))
    texts = greedy(policy, batch_of(NAMES))
    assert decode_of_record("granite_speech", str(tmp_path / "out"), batch_of(NAMES)) == texts
    model = GraniteSpeechForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    heard = logits(model, policy.processor, "a", tokens)
    model.generate(input_ids=torch.tensor([tokens]), max_new_tokens=2)
    assert torch.equal(logits(model, policy.processor, "a", tokens), heard)
    model.save_pretrained(tmp_path / "again")
    again = GraniteSpeechForConditionalGeneration.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(logits(again, policy.processor, "a", tokens), heard)


@pytest.mark.parametrize("encoder", [False, True])
def test_batch_norm_stands_still_in_training(encoder: bool) -> None:
    policy = GraniteSpeechPolicy(SPECS["granite_speech"], Finetune(encoder=encoder)).train()
    before = {name: value.clone() for name, value in policy.model.named_buffers()}
    assert any("running_mean" in name for name in before)
    first = policy.encode(batch_of(NAMES))
    again = policy.encode(batch_of(NAMES))
    assert torch.equal(first.features, again.features), "dropout in the encoder"
    for name, value in policy.model.named_buffers():
        assert torch.equal(value, before[name]), name
    assert policy.backbone.training


def test_logits_are_scaled_as_the_language_model_scales_them() -> None:
    """By Granite's own class; that of Granite-Speech leaves it out."""
    policy = make("granite_speech")
    config = policy.model.config.text_config
    alone = GraniteForCausalLM(config).eval()
    alone.model.load_state_dict(policy.backbone.state_dict())
    alone.lm_head.load_state_dict(policy.output.state_dict())
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        expected = alone(ids).logits.masked_fill(~policy.allowed, -torch.inf)
        hidden = policy.backbone(input_ids=ids).last_hidden_state
        assert_close(policy.head(hidden), expected, "policy")
        unscaled = policy.model(input_ids=ids).logits
    assert_close(unscaled / config.logits_scaling, alone(ids).logits.detach(), "policy")


def test_a_prompt_does_not_depend_on_the_day(tmp_path: Path) -> None:
    model, processor = SPECS["granite_speech"].build()
    processor.chat_template = (
        "{% if messages[0]['role'] != 'system' %}{{ strftime_now('%d') }}{% endif %}"
        + processor.chat_template
    )
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"writes the date of today into a prompt.*set the policy's system"
    ):
        GraniteSpeechPolicy(str(tmp_path))

    policy = GraniteSpeechPolicy(str(tmp_path), system="one two", instruction="{language} three")
    (tokens,) = policy.encode(batch_of(["a"])).tokens
    words = policy.tokenizer.convert_ids_to_tokens(tokens)
    assert words[:4] == ["<|im_start|>", "one", "two", "<|im_start|>"]
    assert words[-3:] == ["<|unk|>", "three", "<|im_start|>"]


def test_an_encoder_of_other_frames_is_refused(tmp_path: Path) -> None:
    model, processor = SPECS["granite_speech"].build()
    processor.audio_processor.projector_window_size = 10
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="projector_window_size of its feature extractor is 10"):
        GraniteSpeechPolicy(str(tmp_path))
