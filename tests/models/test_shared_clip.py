"""In the rollout a group attends to one copy of its clip's keys and values: less is held, and no number changes."""

from __future__ import annotations

import pytest
import torch

from lightning_audiorl.models.decoding.encoder_decoder import EncoderDecoderPolicy
from lightning_audiorl.models.decoding.group_rows import GroupRows
from lightning_audiorl.models.policy import SampleKey
from lightning_audiorl.types import Decoding, Rollout
from tests.models.families import batch_of, make

KEY = SampleKey(seed=0, rl_step=3)
NAMES = ["a", "b", "c", "d"]


def policy_of(shares_clips: bool) -> EncoderDecoderPolicy:
    policy = make("whisper")
    assert isinstance(policy, EncoderDecoderPolicy)
    policy.fused_attention = shares_clips
    return policy


def sampled(shares_clips: bool, group_size: int) -> Rollout:
    policy = policy_of(shares_clips)
    with torch.no_grad():
        context = policy.encode(batch_of(NAMES))
    decoding = Decoding(max_new_tokens=24, min_cap=24, tokens_per_second=0.0)
    return policy.sample(context, group_size, decoding, KEY)


@pytest.mark.parametrize("group_size", [1, 2, 5])
def test_a_shared_clip_gives_the_numbers_of_repeated_ones_bit_for_bit(group_size: int) -> None:
    shared = sampled(True, group_size)
    repeated = sampled(False, group_size)
    assert torch.equal(shared.tokens, repeated.tokens)
    assert torch.equal(shared.log_probs, repeated.log_probs)

    # Rows left the batch on the way, and some clips with all of their rows: or else this showed little.
    lengths = shared.lengths
    assert lengths.min() < lengths.max()


def test_rows_and_clips_that_leave_are_held_no_more() -> None:
    policy = policy_of(True)
    with torch.no_grad():
        context = policy.encode(batch_of(NAMES))
        state = policy.prefill(context)
        state.expand(3)
        layer = state.cache.cross_attention_cache.layers[0]
        assert len(layer.keys) == len(NAMES)
        assert len(state.hidden) == 3 * len(NAMES)

        # Of the first clip two samples go on, of the last clip one.
        rows = torch.tensor([0, 2, 11])
        state.select(rows)
        assert len(layer.keys) == 2
        assert state.clip_rows is not None
        assert state.clip_rows.prompts.tolist() == [0, 0, 1]
        assert state.clip_rows.num_slots == 2
        state.advance(torch.zeros(3, dtype=torch.long))

        other = policy_of(False)
        alone = other.prefill(context)
        alone.expand(3)
        alone.select(rows)
        alone.advance(torch.zeros(3, dtype=torch.long))
    assert torch.equal(state.hidden, alone.hidden)


def test_places_are_counted_within_each_clip() -> None:
    rows = GroupRows.of(torch.tensor([0, 0, 0, 1, 2, 2]))
    assert rows.slots.tolist() == [0, 1, 2, 0, 0, 1]
    assert rows.num_slots == 3
