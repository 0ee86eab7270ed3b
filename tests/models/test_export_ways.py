"""What is exported is what was trained, be it written by the run, by `audiorl export`, or read by `init_from`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    FunAsrNanoForConditionalGeneration,
    Qwen2AudioForConditionalGeneration,
    WhisperForConditionalGeneration,
)

from lightning_audiorl.commands.export import export
from lightning_audiorl.models import Finetune, Policy, content_hash
from lightning_audiorl.ops.randomness import keyed_generator
from tests.helpers import assert_close
from tests.models.families import POLICIES, SPECS, disturb
from tests.models.test_loading import save_checkpoint

CLASSES: dict[str, Any] = {
    "fun_asr_nano": FunAsrNanoForConditionalGeneration,
    "whisper": WhisperForConditionalGeneration,
    "qwen2_audio": Qwen2AudioForConditionalGeneration,
    "text_lm": AutoModelForCausalLM,
    "speech_lm": AutoModelForCausalLM,
}
LM_ALONE = Finetune(projector=False, lm="lora", lora_rank=4, lora_targets=["q_proj", "v_proj"])
WITH_EMBEDDING = replace(LM_ALONE, lora_targets=["q_proj", "embed_tokens"])
ALL = Finetune()


def start_folder(family: str, tied: bool, folder: Path) -> str:
    """A start in Hugging Face layout, far from newborn, whose head is the embedding or is not."""
    model, processor = SPECS[family].build()
    if not tied:
        head = model.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.detach().clone())
        for config in (model.config, model.config.get_text_config(decoder=True)):
            config.tie_word_embeddings = False

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = keyed_generator("start", name)
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def logits(family: str, model: Any) -> Tensor:
    """Of a transformers model, or of a policy's, on inputs that are always the same."""
    words = torch.arange(5, 12)[None]
    generator = keyed_generator("inputs", family)
    model.eval()
    if family == "whisper":
        features = torch.randn(1, 16, 200, generator=generator)
        return model(input_features=features, decoder_input_ids=words % 9).logits
    if family == "fun_asr_nano":
        features = torch.randn(1, 4, 560, generator=generator)
        ids = torch.cat([torch.full((1, 4), model.config.audio_token_id), words % 9], dim=1)
        return model(
            input_features=features, input_features_mask=torch.ones(1, 4).long(), input_ids=ids
        ).logits
    if family == "qwen2_audio":
        features = torch.randn(1, 16, 200, generator=generator)
        # Ten windows of 10 ms are two audio tokens.
        keep = (torch.arange(200) < 10)[None].long()
        ids = torch.cat([torch.full((1, 2), model.config.audio_token_id), words % 9], dim=1)
        return model(
            input_features=features,
            feature_attention_mask=keep,
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
        ).logits
    return model(input_ids=words % 9).logits


def reloaded(family: str, folder: Path) -> Any:
    """By transformers alone."""
    return CLASSES[family].from_pretrained(folder, attn_implementation="sdpa")


def says_tied(folder: Path) -> bool:
    """What the configuration says where the model reads it."""
    config = json.loads((folder / "config.json").read_text())
    flags = [config.get("tie_word_embeddings", True)]
    if "text_config" in config:
        flags.append(config["text_config"].get("tie_word_embeddings", True))
    assert len(set(flags)) == 1, f"the parts of config.json disagree: {flags}"
    return bool(flags[0])


def trained(family: str, source: Any, finetune: Finetune) -> tuple[Policy, str]:
    """A policy that has moved, and the hash of what it began from."""
    policy = POLICIES[family](source, finetune).eval()
    before = content_hash(policy)
    disturb(policy, 0.1)
    return policy, before


@pytest.mark.fault(
    "What is exported",
    "adapters on an embedding that is also the head",
    "the run's export, audiorl export and init_from of the checkpoint are the same model, the trained one",
)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", list(CLASSES))
@pytest.mark.parametrize("finetune", [WITH_EMBEDDING, LM_ALONE, ALL], ids=["embed", "lora", "all"])
def test_four_ways_to_the_trained_model_are_one(
    family: str, finetune: Finetune, tied: bool, tmp_path: Path
) -> None:
    start = start_folder(family, tied, tmp_path / "start")
    policy, before = trained(family, start, finetune)
    live = logits(family, policy.model)
    assert (live - logits(family, reloaded(family, tmp_path / "start"))).abs().max() > 0.1

    policy.export(str(tmp_path / "run"))
    checkpoint = save_checkpoint(policy, tmp_path / "last.ckpt", before)
    export(POLICIES[family](checkpoint, ALL), str(tmp_path / "command"))
    again = POLICIES[family](checkpoint, ALL)
    assert_close(logits(family, again.model), live, "policy")
    for way in ("run", "command"):
        assert_close(logits(family, reloaded(family, tmp_path / way)), live, "policy")
        # One matrix where it is one, two where they parted; a converter goes by what the configuration says.
        # Qwen2-Audio's head is never the embedding.
        one = tied and finetune is not WITH_EMBEDDING and family != "qwen2_audio"
        assert says_tied(tmp_path / way) == one
    # The live policy goes on as it was.
    assert_close(logits(family, policy.model), live, "exact")


@pytest.mark.fault(
    "What is exported",
    "a run that goes on from a checkpoint whose embedding and head had parted",
    "its checkpoint is a start, too, and its export is what it trained",
)
@pytest.mark.parametrize("family", list(CLASSES))
def test_a_chain_through_parted_embeddings_is_rebuilt(family: str, tmp_path: Path) -> None:
    start = start_folder(family, True, tmp_path / "start")
    first, before = trained(family, start, WITH_EMBEDDING)
    one = save_checkpoint(first, tmp_path / "one.ckpt", before)
    second, between = trained(family, one, ALL)
    head = second.model.get_output_embeddings().weight
    is_one = head is second.model.get_input_embeddings().weight
    assert not is_one
    assert head.requires_grad
    two = save_checkpoint(second, tmp_path / "two.ckpt", between)

    third = POLICIES[family](two, WITH_EMBEDDING)
    assert content_hash(POLICIES[family](two)) == content_hash(second)
    third.export(str(tmp_path / "third"))
    live = logits(family, second.model)
    assert_close(logits(family, reloaded(family, tmp_path / "third")), live, "policy")
    again = POLICIES[family](str(tmp_path / "third"))
    again.export(str(tmp_path / "again"))
    assert content_hash(again) == content_hash(second)
    assert_close(logits(family, reloaded(family, tmp_path / "again")), live, "policy")
    assert not says_tied(tmp_path / "again")
