"""A rollout that reads copies of the weights draws what it draws without them, and never by a stale copy."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from lightning_audiorl.engine.rollout import Sampler
from lightning_audiorl.models.decoding import weight_copies
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy
from lightning_audiorl.models.policy import SampleKey
from lightning_audiorl.serving import LocalEngine
from lightning_audiorl.strategies import Part, Phase
from lightning_audiorl.strategies.ledger import Ledger
from lightning_audiorl.strategies.placement import Placement
from lightning_audiorl.types import Decoding, Rollout
from tests.models.families import batch_of, make

KEY = SampleKey(seed=0, rl_step=3)
DECODING = Decoding(max_new_tokens=12, min_cap=12, tokens_per_second=0.0)
BATCH = batch_of(["a", "b"])


@torch.no_grad()
def sampled(policy: CachedPromptPolicy, engine: LocalEngine | None, batch_size: int = 0) -> Rollout:
    # No sample stops.
    policy.allowed[policy.stop_ids] = False
    sampler = Sampler(3, DECODING, batch_size, engine)
    return sampler.sample(policy, BATCH, policy.encode(BATCH), KEY)


def assert_alike(actual: Rollout, expected: Rollout) -> None:
    assert torch.equal(actual.tokens, expected.tokens)
    # These tiny models, whose weights are large, round as much to float64.
    torch.testing.assert_close(actual.log_probs, expected.log_probs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("mode", ["all", "lora"])
@pytest.mark.parametrize("family", ["text_lm", "fun_asr_nano", "whisper"])
def test_copies_change_no_token(family: str, mode: str) -> None:
    policy = make(family, mode)
    engine = LocalEngine(copy_weights=True)
    copied = sampled(policy, engine)
    assert copied.tokens.shape[-1] == DECODING.max_new_tokens
    assert engine.copies.peak_bytes > 0
    assert_alike(copied, sampled(policy, None))


def test_weights_are_cast_once_for_mixed_precision() -> None:
    policy = make("fun_asr_nano")
    exact = sampled(policy, None)
    engine = LocalEngine(copy_weights=True)
    with (
        torch.autocast("cpu", torch.bfloat16),
        mock.patch.object(weight_copies, "_Copy", wraps=weight_copies._Copy) as made,
    ):
        copied = sampled(policy, engine, batch_size=1)
    assert 0 < (copied.log_probs - exact.log_probs)[..., 0].abs().max() < 0.05

    layers = weight_copies.copied_layers([policy.backbone, policy.output])
    assert made.call_count == len(layers)
    assert engine.copies.peak_bytes == sum(2 * layer.weight.numel() for layer in layers)


def test_a_weight_that_trains_is_copied_anew_after_an_optimizers_step() -> None:
    policy = make("text_lm")
    engine = LocalEngine(copy_weights=True)
    before = sampled(policy, engine)
    # Nothing is held between rollouts.
    assert engine.copied_bytes()[0] == 0

    optimizer = torch.optim.SGD(policy.parameters(), lr=0.3)
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    after = sampled(policy, None)
    assert not torch.equal(before.log_probs, after.log_probs)
    assert_alike(sampled(policy, engine), after)


def test_copies_of_frozen_weights_are_kept_until_these_are_written_to() -> None:
    policy = make("fun_asr_nano", "lora")
    engine = LocalEngine(copy_weights=True)
    sampled(policy, engine)
    kept = dict(engine.copies.kept)
    held, in_rollout = engine.copied_bytes()
    assert held == sum(4 * layer.weight.numel() for layer in kept)
    assert 0 < held < in_rollout

    # Two passes of one prompt: still the same copies.
    sampled(policy, engine, batch_size=1)
    assert all(engine.copies.kept[layer] is copy for layer, copy in kept.items())

    with torch.no_grad():
        for layer in kept:
            layer.weight.mul_(1.01)
    assert_alike(sampled(policy, engine), sampled(policy, None))

    engine.close()
    assert engine.copied_bytes()[0] == 0


def test_layers_are_as_they_were_even_where_sampling_fails() -> None:
    policy = make("text_lm")
    engine = LocalEngine(copy_weights=True)
    died = mock.patch.object(policy, "sample", side_effect=RuntimeError("died"))
    with died, pytest.raises(RuntimeError, match="died"):
        sampled(policy, engine)
    assert engine.copies.peak_bytes > 0
    assert not any("forward" in vars(module) for module in policy.modules())


def test_the_ledger_has_kept_copies_in_every_phase() -> None:
    placement = Placement("resident", torch.device("cpu"))
    phases: frozenset[Phase] = frozenset({"rollout"})
    placement.add([Part("lm", phases, lambda: [torch.zeros(2**18)])])
    ledger = Ledger(placement, torch.device("cpu"))
    for phase in ("rollout", "update"):
        with ledger.phase(phase):
            pass
    ledger.add_copies(kept=2**19, in_rollout=2**20)
    assert ledger.metrics()["resident_mib/rollout"] == 2.0
    assert ledger.metrics()["resident_mib/update"] == 1.5
    assert "| weight copies | 1.0 | 0.5 |" in ledger.table()
