"""Log-probs by the transformers class's own forward: every sample alone, prompt and completion at once, no cache."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy
from lightning_audiorl.types import PromptBatch, Rollout
from tests.models.records import RECORDS, Record


def naive_log_probs(
    family: str,
    policy: CachedPromptPolicy,
    batch: PromptBatch,
    rollout: Rollout,
    temperature: float = 1.0,
) -> Tensor:
    """[B, G, T], 0 where not kept; with gradients."""
    rows = []
    for b in range(len(batch)):
        for g in range(rollout.tokens.shape[1]):
            tokens = rollout.tokens[b, g, rollout.keep[b, g]]
            forward = _FORWARDS.get(family) or partial(_of_record, RECORDS[family])
            logits = forward(policy, batch.select([b]), tokens)[0, -len(tokens) - 1 : -1]
            logits = logits.masked_fill(~policy.allowed, -torch.inf) / temperature
            scored = torch.log_softmax(logits, -1).gather(-1, tokens[:, None]).squeeze(-1)
            rows.append(
                torch.nn.functional.pad(scored, (0, rollout.tokens.shape[-1] - len(tokens)))
            )
    return torch.stack(rows).view(rollout.tokens.shape)


def _fun_asr_nano(policy: Any, clip: PromptBatch, tokens: Tensor) -> Tensor:
    inputs = policy.processor.apply_transcription_request(clip.waveform[0].numpy(), language="en")
    ids = torch.cat([inputs["input_ids"], tokens[None]], dim=1)
    features = {name: inputs[name] for name in ("input_features", "input_features_mask")}
    return policy.model(
        input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **features
    ).logits


def _whisper(policy: Any, clip: PromptBatch, tokens: Tensor) -> Tensor:
    features = policy.processor(
        clip.waveform[0].numpy(), sampling_rate=clip.sample_rate_hz, return_tensors="pt"
    )
    names = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    prompt = torch.tensor([policy.tokenizer.convert_tokens_to_ids(names)])
    ids = torch.cat([prompt, tokens[None]], dim=1)
    inputs = features["input_features"].to(policy.model.dtype)
    return policy.model(inputs, decoder_input_ids=ids, use_cache=False).logits


def _text_lm(policy: Any, clip: PromptBatch, tokens: Tensor) -> Tensor:
    words = policy.tokenizer.encode(clip.rows[0].extra["prompt"], add_special_tokens=False)
    ids = torch.cat([torch.tensor([[policy.tokenizer.bos_token_id, *words]]), tokens[None]], dim=1)
    return policy.model(input_ids=ids, use_cache=False).logits


def _of_record(record: Record, policy: Any, clip: PromptBatch, tokens: Tensor) -> Tensor:
    inputs = record.ask(policy.processor, clip.waveform[0].numpy())
    ids = torch.cat([inputs.pop(record.ids), tokens[None]], dim=1)
    masked = {} if record.ids != "input_ids" else {"attention_mask": torch.ones_like(ids)}
    floats = {k: v.to(policy.model.dtype) for k, v in inputs.items() if v.is_floating_point()}
    out = policy.model(**{record.ids: ids}, use_cache=False, **(inputs | floats | masked))
    return out.logits / record.logits_scaling


_FORWARDS = {"fun_asr_nano": _fun_asr_nano, "whisper": _whisper, "text_lm": _text_lm}
