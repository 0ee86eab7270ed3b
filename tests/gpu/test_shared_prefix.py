"""On CUDA, the packed path has the gradients of transformers' own forward, one sample after another, in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl.models import SampleKey
from tests.algorithms.naive import inputs_of
from tests.gpu.runs import NEEDS_GPU
from tests.helpers import assert_close, assert_gradients_close
from tests.models.families import DECODING, batch_of, log_probs, make

pytestmark = NEEDS_GPU

NAMES, GROUP_SIZE = ["a", "b", "c"], 3


def naive_log_probs(family: str, policy: Any, batch: Any, b: int, tokens: Tensor) -> Tensor:
    """[T] of one sample that carries its own prompt."""
    if family == "fun_asr_nano":
        inputs = {
            name: value.to(tokens.device)
            for name, value in inputs_of(policy, batch, b, tokens.tolist()).items()
        }
    else:
        words = policy.tokenizer.encode(batch.rows[b].extra["prompt"], add_special_tokens=False)
        start = torch.tensor([policy.tokenizer.bos_token_id, *words], device=tokens.device)
        inputs = {"input_ids": torch.cat([start, tokens])[None]}
    logits = policy.model(**inputs, use_cache=False).logits[0, -len(tokens) - 1 : -1]
    scored = logits.masked_fill(~policy.allowed, -torch.inf).log_softmax(-1)
    return scored.gather(-1, tokens[:, None]).squeeze(-1)


def check(family: str, device: str) -> None:
    assert not torch.backends.cuda.matmul.allow_tf32
    policy = make(family).to(device)
    batch = batch_of(NAMES)
    context = policy.encode(batch.to(device))
    rollout = policy.sample(context, GROUP_SIZE, DECODING, SampleKey(0, 0))
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(rollout.tokens.shape, generator=generator).to(device) * rollout.keep
    trained = policy.trainable()

    packed = log_probs(policy, context, rollout)
    ours = torch.autograd.grad((packed * weights).sum(), list(trained.values()))

    total = torch.zeros((), device=device)
    for b in range(len(NAMES)):
        for g in range(GROUP_SIZE):
            kept = rollout.keep[b, g]
            alone = naive_log_probs(family, policy, batch, b, rollout.tokens[b, g, kept])
            assert_close(packed[b, g, kept].detach(), alone.detach(), "policy")
            total = total + (alone * weights[b, g, kept]).sum()
    theirs = torch.autograd.grad(total, list(trained.values()))
    for name, gradient, expected in zip(trained, ours, theirs, strict=True):
        if expected.norm() > 1e-6 * total.abs():
            assert_gradients_close(gradient, expected)
        else:
            assert gradient.norm() <= 1e-5, name


@pytest.mark.parametrize("family", ["fun_asr_nano", "text_lm"])
def test_gradients_of_packed_rows_are_those_of_samples_alone(family: str) -> None:
    check(family, "cuda")
