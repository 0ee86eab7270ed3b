"""An exported folder decodes in transformers as the policy does."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FunAsrNanoForConditionalGeneration,
    FunAsrNanoProcessor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from lightning_audiorl.models import SampleKey
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy
from lightning_audiorl.types import Decoding, PromptBatch
from tests.helpers import assert_close
from tests.models.families import CASES, FAMILIES, POLICIES, batch_of, disturb, log_probs, make
from tests.models.records import RECORDS

NAMES = list("abcdef")
MAX_NEW_TOKENS = 20


def greedy(policy: CachedPromptPolicy, batch: PromptBatch) -> list[str]:
    decoding = Decoding(temperature=0.0, max_new_tokens=MAX_NEW_TOKENS, min_cap=MAX_NEW_TOKENS)
    context = policy.encode(batch)
    return [
        group[0]
        for group in policy.decode(policy.sample(context, 1, decoding, SampleKey(0, 0)), context)
    ]


def clips_of(batch: PromptBatch) -> list[Any]:
    return [
        wave[: int(n)].numpy() for wave, n in zip(batch.waveform, batch.num_samples, strict=True)
    ]


def decode_fun_asr_nano(folder: str, batch: PromptBatch, **how: Any) -> list[str]:
    model = FunAsrNanoForConditionalGeneration.from_pretrained(folder, **how).eval()
    processor = FunAsrNanoProcessor.from_pretrained(folder)
    inputs = processor.apply_transcription_request(clips_of(batch), language="en", padding=True)
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
    return processor.batch_decode(
        tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )


def decode_whisper(folder: str, batch: PromptBatch, **how: Any) -> list[str]:
    model = WhisperForConditionalGeneration.from_pretrained(folder, **how).eval()
    processor = WhisperProcessor.from_pretrained(folder)
    inputs = processor(clips_of(batch), sampling_rate=batch.sample_rate_hz, return_tensors="pt")
    tokens = model.generate(**inputs, language="en", do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
    return processor.batch_decode(tokens, skip_special_tokens=True)


def decode_text_lm(folder: str, batch: PromptBatch, **how: Any) -> list[str]:
    model = AutoModelForCausalLM.from_pretrained(folder, **how).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [f"{tokenizer.bos_token} {row.extra['prompt']}" for row in batch.rows]
    inputs = tokenizer(prompts, padding=True, return_tensors="pt", return_token_type_ids=False)
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
    return tokenizer.batch_decode(
        tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )


DECODERS: dict[str, Any] = {
    "fun_asr_nano": decode_fun_asr_nano,
    "whisper": decode_whisper,
    "text_lm": decode_text_lm,
}


def decode_of_record(family: str, folder: str, batch: PromptBatch, **how: Any) -> list[str]:
    """Clip by clip: what these classes do in a batch is not always what they do alone."""
    classes = RECORDS[family].policy.family
    model = classes.model.from_pretrained(folder, **how).eval()
    return decode_with(family, model, classes.processor.from_pretrained(folder), batch)


def decode_with(family: str, model: Any, processor: Any, batch: PromptBatch) -> list[str]:
    """What ``generate`` of a family's own class makes of each clip."""
    record = RECORDS[family]
    texts = []
    for clip in clips_of(batch):
        inputs = record.ask(processor, clip)
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
        completion = tokens[0, inputs[record.ids].shape[1] :]
        decoded = processor.tokenizer.decode(completion, skip_special_tokens=True)
        texts.append(record.read(str(decoded)))
    return texts


DECODERS |= {family: partial(decode_of_record, family) for family in RECORDS}


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_decodes_the_export_identically(family: str, tmp_path: Path) -> None:
    policy, batch, folder = make(family), batch_of(NAMES), str(tmp_path)
    disturb(policy)
    ours = greedy(policy, batch)
    assert len(set(ours)) > 2, f"this compares next to nothing: {ours}"
    policy.export(folder)
    assert DECODERS[family](folder, batch, attn_implementation="sdpa") == ours
    for i in range(3):
        assert DECODERS[family](folder, batch.select([i])) == [ours[i]]


def test_export_forbids_what_the_policy_forbids(tmp_path: Path) -> None:
    """Without the suppressed tokens a model that likes a special token would decode otherwise."""
    policy, batch = make("text_lm"), batch_of(NAMES)
    word = policy.tokenizer.convert_tokens_to_ids("one")
    with torch.no_grad():
        policy.allowed[word] = False
    ours = greedy(policy, batch)
    policy.export(str(tmp_path))
    assert "one" in " ".join(greedy(make("text_lm"), batch))
    assert decode_text_lm(str(tmp_path), batch) == ours


@pytest.mark.parametrize(("family", "mode"), CASES)
def test_merged_export_equals_the_live_model(family: str, mode: str, tmp_path: Path) -> None:
    policy, batch = make(family, mode), batch_of(NAMES)
    disturb(policy)
    rollout = policy.sample(policy.encode(batch), 2, Decoding(max_new_tokens=8), SampleKey(0, 0))
    policy.export(str(tmp_path))
    again = POLICIES[family](str(tmp_path)).eval()
    assert not any("lora" in name or "base_layer" in name for name in again.state_dict())
    scored = log_probs(again, again.encode(batch), rollout)
    assert_close(scored, log_probs(policy, policy.encode(batch), rollout), "policy")
    untouched = make(family, mode)
    assert (scored - log_probs(untouched, untouched.encode(batch), rollout)).abs().max() > 1e-2
