"""Gradient checkpointing: less is held, nothing else changes. And packed rows under torch.compile and autocast."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl import ops
from lightning_audiorl.models import Finetune, Reference, SampleKey, TextLMPolicy, TinyCausalLM
from lightning_audiorl.models.decoding import shared_prefix
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy
from lightning_audiorl.models.finetune import Parts, apply_finetune
from tests.allocations import AllocationWatch
from tests.helpers import assert_close, assert_gradients_close
from tests.models.families import (
    CASES,
    DECODING,
    FAMILIES,
    WORDS,
    batch_of,
    disturb,
    log_probs,
    make,
    random_rollout,
)

KEY = SampleKey(seed=5, rl_step=2)
NAMES = ["a", "b", "c"]


def gradients(policy: CachedPromptPolicy, scored: Tensor) -> Tensor:
    """All of them as one vector."""
    policy.zero_grad()
    (scored * torch.linspace(0.5, 2, scored.numel()).view(scored.shape)).sum().backward()
    return torch.cat([p.grad.flatten() for p in policy.trainable().values()])


# --- checkpointing


@pytest.mark.parametrize(("family", "mode"), CASES)
def test_checkpointing_changes_no_bit(family: str, mode: str) -> None:
    plain, checkpointed = make(family, mode), make(family, mode, checkpointing=True)
    results = []
    for policy in (plain, checkpointed):
        disturb(policy)
        context = policy.encode(batch_of(NAMES))
        rollout = policy.sample(context, 3, DECODING, KEY)
        scored = log_probs(policy, context, rollout)
        results.append((rollout.log_probs, scored.detach(), gradients(policy, scored)))
    for one, other in zip(*results, strict=True):
        assert_close(one, other, "exact")
    assert list(plain.state_dict()) == list(checkpointed.state_dict())


@pytest.mark.parametrize("training", [False, True])
def test_checkpointing_holds_less(training: bool) -> None:
    held, scored = {}, {}
    for checkpointing in (False, True):
        spec = TinyCausalLM(WORDS, width=64, layers=8, heads=2)
        policy = TextLMPolicy(spec, Finetune(gradient_checkpointing=checkpointing)).train(training)
        context = policy.encode(batch_of(NAMES))
        targets = policy.targets(context, ["one two three " * 20, "two " * 40, "three one"])
        with AllocationWatch() as watch:
            scored[checkpointing] = log_probs(policy, context, targets)
            held[checkpointing] = watch.held_bytes
    assert_close(scored[True], scored[False], "exact")
    num_tokens = 3 * (max(context.prompt_lengths) + targets.tokens.shape[-1] - 1)
    inputs_of_layers = 8 * num_tokens * 64 * 4
    assert inputs_of_layers < held[True] < 4 * inputs_of_layers
    assert held[False] > 4 * held[True]


def test_dropout_is_drawn_once_under_checkpointing() -> None:
    """In train mode a layer is computed again with the same draws; in eval mode, where RL updates, there are none."""
    policies = [make("whisper", checkpointing=checkpointing) for checkpointing in (False, True)]
    results = []
    for policy in policies:
        for layer in policy.backbone.layers:
            layer.dropout = 0.5
        context = policy.encode(batch_of(NAMES))
        rollout = policy.sample(context, 3, DECODING, KEY)
        torch.manual_seed(0)
        results.append(gradients(policy.train(), log_probs(policy, context, rollout)))
        quiet = log_probs(policy.eval(), context, rollout)
        assert_close(quiet, rollout.log_probs, "policy")
        assert_close(
            gradients(policy, quiet),
            gradients(policy, log_probs(policy, context, rollout)),
            "exact",
        )
    assert_close(*results, "exact")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_switch_of_transformers_loses_nothing(family: str) -> None:
    """With a key-value cache it would lose the prompt: transformers drops the cache in every layer."""
    policy = make(family)
    context = policy.encode(batch_of(NAMES))
    rollout = policy.sample(context, 3, DECODING, KEY)
    expected = gradients(policy, log_probs(policy, context, rollout))
    # Granite-Speech has it in its language model alone.
    has_switch = policy.model.supports_gradient_checkpointing
    model = policy.model if has_switch else policy.backbone
    # Its name since transformers 5.23, and before.
    switch = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    switch()
    policy.backbone.train()
    scored = log_probs(policy, context, rollout)
    assert_close(scored, rollout.log_probs, "policy")
    assert_close(gradients(policy, scored), expected, "exact")


def test_a_layer_with_a_cache_is_left_alone() -> None:
    policy = make("text_lm", checkpointing=True)
    context = policy.encode(batch_of(NAMES))
    state = policy.prefill(context)
    with torch.no_grad():
        expected = policy.prefill(context).hidden
    assert state.hidden.requires_grad
    assert_close(state.hidden.detach(), expected, "exact")
    state.hidden.sum().backward()
    assert state.cache.get_seq_length() == max(context.prompt_lengths)


def test_a_model_without_layers_is_refused() -> None:
    model = torch.nn.Linear(2, 2)
    parts = Parts([], [], model, torch.nn.ModuleList(), [])
    with pytest.raises(ValueError, match="no list of layers was found in a Linear"):
        apply_finetune(model, parts, Finetune(gradient_checkpointing=True))


# --- compiled, and in half precision


@pytest.mark.parametrize(
    "family",
    [
        "text_lm",
        *(pytest.param(family, marks=pytest.mark.slow) for family in ("fun_asr_nano", "whisper")),
    ],
)
def test_compiled_layers_give_the_same_numbers(family: str) -> None:
    policy = make(family)
    context = policy.encode(batch_of(NAMES))
    rollout = policy.sample(context, 3, DECODING, KEY)
    scored = log_probs(policy, context, rollout)
    expected = gradients(policy, scored)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for layer in policy.backbone.layers:
        layer.compile(backend="aot_eager", fullgraph=True)
    compiled = log_probs(policy, context, rollout)
    assert_close(compiled.detach(), scored.detach())
    assert_gradients_close(gradients(policy, compiled), expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_autocast_keeps_what_needs_precision_in_float32(
    family: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    attended: set[torch.dtype] = set()
    original = shared_prefix.attend

    def spy(*args: Any) -> Any:
        out, norm = original(*args)
        attended.update({*(x.dtype for x in args[:3]), out.dtype})
        assert norm.dtype == torch.float32
        return out, norm

    monkeypatch.setattr(shared_prefix, "attend", spy)
    policy = make(family, lively=False, checkpointing=checkpointing)
    reference = Reference(policy)
    context = policy.encode(batch_of(["a"]))
    rollout = random_rollout(policy, 1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = policy.hidden(context, rollout)
        assert policy.head(hidden).dtype == torch.bfloat16
        scored = log_probs(policy, context, rollout)
        with reference.swapped_in(policy):
            of_reference = log_probs(policy, context, rollout)
        kl = ops.kl_estimate(scored, of_reference, "k3", rollout.keep)
    gradient = gradients(policy, scored)
    assert attended == {torch.bfloat16}
    assert scored.dtype == of_reference.dtype == kl.dtype == torch.float32
    assert torch.equal(kl, torch.zeros_like(kl))
    assert (scored - log_probs(policy, context, rollout)).abs().max() < 0.05
    assert gradient.isfinite().all()
    assert gradient.norm() > 0
