"""In the rollout a prompt's keys and values are held and read once for its group: the same tokens and log-probs."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from lightning_audiorl.models.decoding.cache import held_bytes
from lightning_audiorl.models.decoding.decoder_only import DecoderOnlyPolicy
from lightning_audiorl.models.policy import SampleKey
from lightning_audiorl.types import Decoding, Rollout
from tests.models.families import POLICIES, batch_of, make

KEY = SampleKey(seed=0, rl_step=3)
NAMES = ["a", "b", "c", "d"]
DECODER_ONLY = [name for name in POLICIES if isinstance(make(name), DecoderOnlyPolicy)]


def sampled(
    family: str,
    is_shared: bool,
    group_size: int = 5,
    fused: bool | None = None,
    dtype: torch.dtype = torch.float32,
) -> Rollout:
    policy = make(family).to(dtype)
    policy.fused_attention = fused
    context = policy.encode(batch_of(NAMES))
    decoding = Decoding(max_new_tokens=12, min_cap=12, tokens_per_second=0.0)
    # A model with a window keeps each sample's own copy of the prompt, which is how it was for all.
    name = "lightning_audiorl.models.decoding.decoder_only.has_window"
    with mock.patch(name, return_value=not is_shared), torch.no_grad():
        return policy.sample(context, group_size, decoding, KEY)


def assert_alike(actual: Rollout, expected: Rollout, tolerance: float = 1e-5) -> None:
    assert torch.equal(actual.tokens, expected.tokens)
    assert torch.equal(actual.keep, expected.keep)
    torch.testing.assert_close(actual.log_probs, expected.log_probs, atol=tolerance, rtol=0)


@pytest.mark.parametrize("family", DECODER_ONLY)
def test_a_shared_prompt_gives_what_copies_of_it_give(family: str) -> None:
    # Rounding weighs more in the tiny Voxtral: copies are as far from float64 (1.9e-5) as what is shared (1.6e-5).
    tolerance = 2e-5 if family == "voxtral" else 1e-5
    assert_alike(sampled(family, True), sampled(family, False), tolerance)


def test_in_float64_the_two_are_one() -> None:
    shared = sampled("text_lm", True, dtype=torch.float64)
    assert_alike(shared, sampled("text_lm", False, dtype=torch.float64), 1e-6)


def test_also_without_the_fused_kernel_of_the_cpu() -> None:
    shared = sampled("fun_asr_nano", True, fused=False)
    assert_alike(shared, sampled("fun_asr_nano", False))
    # Some rows left on the way, or else this showed little.
    assert shared.lengths.min() < shared.lengths.max()


def test_under_bfloat16_a_shared_prompt_is_as_near_as_copies_are() -> None:
    exact = sampled("fun_asr_nano", True)
    with torch.autocast("cpu", torch.bfloat16):
        shared = sampled("fun_asr_nano", True)
        copies = sampled("fun_asr_nano", False)
    for low in (shared, copies):
        first = (low.log_probs - exact.log_probs)[..., 0]
        assert first.abs().max() < 0.05


def prefilled(group_size: int, is_shared: bool = True):  # type: ignore[no-untyped-def]
    policy = make("fun_asr_nano")
    name = "lightning_audiorl.models.decoding.decoder_only.has_window"
    with mock.patch(name, return_value=not is_shared), torch.no_grad():
        state = policy.prefill(policy.encode(batch_of(NAMES)))
        state.expand(group_size)
    return state


@torch.no_grad()
def test_the_prompts_part_of_the_cache_is_that_of_one_sample_each() -> None:
    group_size = 16
    shared = prefilled(group_size)
    copies = prefilled(group_size, is_shared=False)
    rows = len(NAMES) * group_size
    assert len(shared.hidden) == len(copies.hidden) == rows
    for state in (shared, copies):
        state.advance(torch.zeros(rows, dtype=torch.long))

    # Beside the prompts there is room for the tokens to come, 64 of each row in either.
    layers = shared.cache.layers
    prompts = sum(2 * layer.prompt_keys.nbytes for layer in layers)
    room = held_bytes(shared.cache) - prompts
    length = layers[0].prompt_keys.shape[-2]
    assert room == prompts / length / len(NAMES) * rows * 64
    assert held_bytes(copies.cache) >= group_size * prompts + room


@torch.no_grad()
def test_rows_and_prompts_that_leave_are_held_no_more() -> None:
    state = prefilled(3)
    other = prefilled(3, is_shared=False)
    for each in (state, other):
        each.advance(torch.full((12,), 7))

        # Of the first prompt two samples go on, of the last prompt one.
        each.select(torch.tensor([0, 2, 11]))
        each.advance(torch.tensor([5, 6, 7]))

    layer = state.cache.layers[0]
    assert len(layer.prompt_keys) == 2
    assert layer.keys.shape[0] == 3
    assert layer.get_seq_length() == layer.prompt_keys.shape[-2] + 2
    assert state.shared.rows.prompts.tolist() == [0, 0, 1]
    torch.testing.assert_close(state.hidden, other.hidden, atol=1e-5, rtol=0)


def test_one_sample_of_each_prompt_is_computed_as_ever() -> None:
    alone = sampled("fun_asr_nano", True, group_size=1)
    copies = sampled("fun_asr_nano", False, group_size=1)
    assert torch.equal(alone.log_probs, copies.log_probs)
