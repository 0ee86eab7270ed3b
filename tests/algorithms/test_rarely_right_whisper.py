"""Whisper's suppressed tokens stand in references, but are never sampled: such a row goes without."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from lightning_audiorl.algorithms import GRPO, Optim
from lightning_audiorl.losses import ReferenceSample
from lightning_audiorl.models import WhisperPolicy
from lightning_audiorl.rewards import Accuracy, RewardMix
from lightning_audiorl.types import PromptBatch
from tests.algorithms.tiny import fit
from tests.models.families import DECODING, batch_of, make


def suppressing(word: str) -> WhisperPolicy:
    """A tiny Whisper that never writes a word."""
    policy = make("whisper")
    policy.model.generation_config.suppress_tokens = [policy.tokenizer.get_vocab()[word]]
    policy.stop_ids, policy.allowed = policy._vocabulary()
    return policy


def batch_with(*texts: str) -> PromptBatch:
    batch = batch_of(["a", "b", "c"][: len(texts)])
    rows = tuple(replace(row, text=text) for row, text in zip(batch.rows, texts, strict=True))
    return replace(batch, rows=rows)


def test_a_reference_with_a_token_that_is_never_sampled_is_no_sample() -> None:
    module = GRPO(
        suppressing("zero"),
        num_steps=1,
        rewards=RewardMix([Accuracy(floor=-1.0)]),
        group_size=3,
        decoding=DECODING,
        optim=Optim(lr=1e-3),
        reference_sample=ReferenceSample(),
    )
    fit(module, [batch_with("zero one", "one", "")])

    metrics = module.step_metrics
    assert math.isfinite(metrics["loss"])
    assert metrics["skipped_updates"] == 0
    assert metrics["reference/texts"] == 2
    assert math.isfinite(metrics["reference_logprob"])
    assert all(torch.isfinite(p).all() for p in module.policy.trainable().values())
