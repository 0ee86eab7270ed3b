"""What trains in each mode, adapters, and the reference that every mode falls back to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lightning_audiorl.models import (
    Finetune,
    FunAsrNanoPolicy,
    Reference,
    SampleKey,
    WhisperPolicy,
    content_hash,
)
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy, PrefixContext
from lightning_audiorl.models.finetune import adapters_off, lora_layers
from lightning_audiorl.types import Rollout
from tests.helpers import assert_close
from tests.models.families import (
    CASES,
    DECODING,
    FAMILIES,
    POLICIES,
    SPECS,
    batch_of,
    disturb,
    finetune_of,
    log_probs,
    make,
)

KEY = SampleKey(0, 0)
LORA_CASES = [case for case in CASES if "lora" in getattr(case, "values", case)[1]]
NAMES = ["a", "b", "c"]


def rolled_out(policy: CachedPromptPolicy) -> tuple[PrefixContext, Rollout]:
    context = policy.encode(batch_of(NAMES))
    return context, policy.sample(context, 3, DECODING, KEY)


@torch.no_grad()
def scored(policy: CachedPromptPolicy, context: PrefixContext, rollout: Rollout) -> Tensor:
    return log_probs(policy, context, rollout)


# --- what trains


@pytest.mark.parametrize(
    ("family", "mode", "parts"),
    [
        (
            "fun_asr_nano",
            "all",
            {"language_model.embed_tokens", "language_model.layers.0", "multi_modal_projector"},
        ),
        ("fun_asr_nano", "last", {"language_model.layers.1", "language_model.norm"}),
        ("fun_asr_nano", "projector", {"multi_modal_projector"}),
        (
            "qwen2_audio",
            "all",
            {"embed_tokens", "language_model.layers.0", "multi_modal_projector"},
        ),
        ("qwen2_audio", "last", {"language_model.layers.1", "language_model.norm", "lm_head"}),
        ("qwen2_audio", "projector", {"multi_modal_projector"}),
        ("whisper", "all", {"decoder.embed_positions", "decoder.layers.0", "decoder.layers.1"}),
        ("whisper", "last", {"decoder.layers.1", "decoder.layer_norm"}),
        ("text_lm", "last", {"layers.1", "model.norm"}),
    ],
)
def test_modes_train_the_parts_that_they_name(family: str, mode: str, parts: set[str]) -> None:
    policy = make(family, mode)
    names = list(policy.trainable())
    assert {part for part in parts if any(part in name for name in names)} == parts
    assert not any("audio_tower" in name or ".encoder.layers" in name for name in names)
    if mode == "last":
        assert not any("layers.0." in name for name in names)
    if mode == "projector":
        assert all("multi_modal_projector" in name for name in names)


@pytest.mark.parametrize(("family", "mode"), LORA_CASES)
def test_lora_trains_fresh_adapters_alone(family: str, mode: str) -> None:
    policy = make(family, mode)
    adapters = {name: p for name, p in policy.trainable().items() if "lora_" in name}
    rest = set(policy.trainable()) - set(adapters)
    assert all("projector" in name for name in rest)
    assert bool(rest) == (mode == "lora+projector")
    assert len(list(lora_layers(policy))) == len(adapters) / 2 >= 14
    assert all(bool(p.any()) == ("lora_A" in name) for name, p in adapters.items())
    again = make(family, mode)
    assert content_hash(again) == content_hash(policy)
    kind, finetune = type(policy), finetune_of(family, mode)
    newborn, other = (kind(SPECS[family], replace(finetune, seed=seed)) for seed in (0, 1))
    assert (
        content_hash(newborn)
        == content_hash(make(family, mode, lively=False))
        != content_hash(other)
    )


def test_the_encoder_trains_when_asked() -> None:
    batch = batch_of(NAMES)
    for family in ("fun_asr_nano", "whisper"):
        policy = POLICIES[family](SPECS[family], Finetune(encoder=True))
        assert any(
            "audio_tower" in name or ".encoder.layers" in name for name in policy.trainable()
        )
        assert not any(
            "embed_positions" in name for name in policy.trainable() if "decoder" not in name
        )
        context = policy.encode(batch)
        assert context.features.requires_grad
        with torch.no_grad():
            assert not policy.encode(batch).features.requires_grad
        assert not make(family).encode(batch).features.requires_grad


@pytest.mark.parametrize(("family", "mode"), CASES)
def test_every_trainable_parameter_has_a_gradient(family: str, mode: str) -> None:
    policy = make(family, mode)
    disturb(policy, 0.01)
    context = policy.encode(batch_of(NAMES))
    log_probs(policy, context, policy.targets(context, ["one two", "three", ""])).sum().backward()
    without = [name for name, p in policy.trainable().items() if p.grad is None or not p.grad.any()]
    assert without == []
    assert all(p.grad is None for p in policy.parameters() if not p.requires_grad)


def test_settings_that_train_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing would train"):
        Finetune(projector=False, lm="none")
    with pytest.raises(
        ValueError, match="nothing would train in a WhisperForConditionalGeneration"
    ):
        WhisperPolicy(SPECS["whisper"], Finetune(lm="none"))
    with pytest.raises(ValueError, match="lm_layers=3: the model has 2 layers"):
        FunAsrNanoPolicy(SPECS["fun_asr_nano"], Finetune(lm="last", lm_layers=3))


# --- the reference


@pytest.mark.parametrize(("family", "mode"), CASES)
def test_kl_is_exactly_zero_at_the_start(family: str, mode: str) -> None:
    policy = make(family, mode)
    context, rollout = rolled_out(policy)
    before = content_hash(policy)
    reference = Reference(policy)
    own = scored(policy, context, rollout)
    with reference.swapped_in(policy):
        assert torch.equal(log_probs(policy, context, rollout), own)
    assert torch.equal(scored(policy, context, rollout), own)
    assert content_hash(policy) == before
    assert reference.adapters_only == (mode == "lora")
    parked = 0 if mode == "lora" else sum(p.numel() * 4 for p in policy.trainable().values())
    assert reference.num_bytes == parked


@pytest.mark.parametrize(("family", "mode"), CASES)
def test_the_reference_stays_while_the_policy_trains(family: str, mode: str) -> None:
    policy = make(family, mode)
    context, rollout = rolled_out(policy)
    start = scored(policy, context, rollout)
    reference = Reference(policy)
    optimizer = torch.optim.AdamW(policy.trainable().values(), lr=0.01)
    for _ in range(2):
        (-log_probs(policy, context, rollout).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = scored(policy, context, rollout)
    objects, requires_grad = (
        list(policy.parameters()),
        [p.requires_grad for p in policy.parameters()],
    )
    assert (trained - start).abs().max() > 1e-2
    with reference.swapped_in(policy):
        inside = log_probs(policy, context, rollout)
    assert torch.equal(inside, start)
    assert not inside.requires_grad
    assert torch.equal(scored(policy, context, rollout), trained)
    assert all(p is q for p, q in zip(policy.parameters(), objects, strict=True))
    assert [p.requires_grad for p in policy.parameters()] == requires_grad


@pytest.mark.parametrize("mode", ["all", "lora"])
def test_an_error_in_the_reference_phase_gives_the_policy_back(mode: str) -> None:
    policy = make("fun_asr_nano", mode)
    context, rollout = rolled_out(policy)
    reference = Reference(policy)
    disturb(policy)
    trained = scored(policy, context, rollout)
    with pytest.raises(ZeroDivisionError), reference.swapped_in(policy):
        raise ZeroDivisionError
    assert torch.equal(scored(policy, context, rollout), trained)


def test_used_adapters_are_parked_like_any_tensor() -> None:
    policy = make("fun_asr_nano", "lora")
    disturb(policy)
    context, rollout = rolled_out(policy)
    start = scored(policy, context, rollout)
    reference = Reference(policy)
    assert not reference.adapters_only
    disturb(policy)
    with reference.swapped_in(policy):
        assert torch.equal(log_probs(policy, context, rollout), start)


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_off_is_the_model_without_adapters(family: str) -> None:
    plain, policy = make(family), make(family, "lora")
    disturb(policy)
    context, rollout = rolled_out(plain)
    with adapters_off(policy):
        assert_close(scored(policy, context, rollout), scored(plain, context, rollout), "exact")
    assert (scored(policy, context, rollout) - scored(plain, context, rollout)).abs().max() > 1e-2
    assert len(policy.trainable()) == 2 * len(list(lora_layers(policy)))


def test_hashes_know_names_and_values() -> None:
    policy = make("text_lm")
    first = content_hash(policy)
    assert first == content_hash(make("text_lm"))
    disturb(policy, 1e-6)
    assert content_hash(policy) != first
