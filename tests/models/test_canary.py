"""Canary: languages, punctuation, and an encoder that stands still."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_audiorl.models import CanaryPolicy, Finetune
from tests.models.families import SPECS, batch_of, make


def names_of(policy: CanaryPolicy, lang: str) -> list[str]:
    batch = batch_of(["a"])
    batch = replace(batch, rows=(replace(batch.rows[0], lang=lang),))
    return policy.tokenizer.convert_ids_to_tokens(policy.encode(batch).tokens[0].tolist())


def test_the_prompt_says_language_and_punctuation() -> None:
    policy = make("canary")
    begin = ["<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>"]
    assert names_of(policy, "en-US")[:6] == [*begin, "<|en|>", "<|en|>", "<|pnc|>"]
    assert names_of(policy, "German")[:6] == [*begin, "<|de|>", "<|de|>", "<|pnc|>"]
    plain = CanaryPolicy(SPECS["canary"], punctuation=False)
    assert names_of(plain, "en")[5] == "<|nopnc|>"
    with pytest.raises(ValueError, match=r"row 'a': lang 'zh' is not one of this model's: \['bg'"):
        names_of(policy, "zh")


def test_it_stops_at_its_last_position() -> None:
    policy = make("canary")
    assert policy.max_positions == 40
    with pytest.raises(ValueError, match="text has 41 tokens, this model's decoder takes 31"):
        policy.targets(policy.encode(batch_of(["a"])), ["one " * 40])


@pytest.mark.parametrize("encoder", [False, True])
def test_batch_norm_stands_still_in_training(encoder: bool) -> None:
    policy = CanaryPolicy(SPECS["canary"], Finetune(encoder=encoder)).train()
    before = {name: value.clone() for name, value in policy.model.named_buffers()}
    assert any("running_mean" in name for name in before)
    first = policy.encode(batch_of(["a", "b"]))
    assert torch.equal(first.features, policy.encode(batch_of(["a", "b"])).features)
    for name, value in policy.model.named_buffers():
        assert torch.equal(value, before[name]), name


def test_a_template_that_asks_otherwise_is_refused(tmp_path: Path) -> None:
    model, processor = SPECS["canary"].build()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    template = tmp_path / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|startofcontext|>", ""))
    with pytest.raises(ValueError, match="what its chat template asks does not begin as"):
        CanaryPolicy(str(tmp_path))
    template.unlink()
    with pytest.raises(ValueError, match="chat template is missing or broken"):
        CanaryPolicy(str(tmp_path))
