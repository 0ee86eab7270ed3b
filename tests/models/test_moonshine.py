"""Moonshine: each clip as if it were alone, which its own class does not see to, and decoders that share a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl.models import MoonshinePolicy, SampleKey
from lightning_audiorl.types import Decoding, Rollout
from tests.helpers import assert_close
from tests.models.families import SPECS, batch_of, make

NAMES = ["a", "b", "c"]
SECONDS = [1.0, 2.0, 4.0]


def own_states(policy: Any, waves: list[Any]) -> tuple[Tensor, Tensor]:
    """What the family's encoder makes of clips in one batch with their mask, and its mask of the frames."""
    inputs = policy.processor(waves, sampling_rate=16000, padding=True, return_tensors="pt")
    out = policy.model.model.encoder(**inputs)
    return out.last_hidden_state, out.attention_mask


@torch.no_grad()
def test_a_clip_beside_longer_ones_is_what_it_is_alone() -> None:
    """As it is not in the family's own batch, where norms run over padding and frames of padding are attended to."""
    policy = make("moonshine")
    batch = batch_of(NAMES, SECONDS)
    together = policy.encode(batch)
    assert together.num_frames.tolist() == [40, 82, 165]
    waves = [
        policy.processor.feature_extractor(clip[:num].numpy(), sampling_rate=16000)
        for clip, num in zip(batch.waveform, batch.num_samples, strict=True)
    ]
    own, mask = own_states(policy, [each["input_values"][0] for each in waves])
    assert mask.sum(-1).tolist()[0] > 40

    for place, name in enumerate(NAMES):
        alone = policy.encode(batch_of([name], [SECONDS[place]])).features[0]
        num = len(alone)
        assert_close(together.features[place, :num], alone, "policy")
        assert not together.features[place, num:].any()
        if name != "c":
            apart = (own[place, :num] - alone).norm() / alone.norm()
            assert apart > 0.02


@torch.no_grad()
def test_clips_of_one_length_go_through_the_encoder_together() -> None:
    policy = make("moonshine")
    calls: list[int] = []
    policy.model.model.encoder.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    policy.encode(batch_of(list("abcd"), [1.0, 0.5, 1.0, 0.5]))
    assert calls == [2, 2]
    assert policy.num_encoded == 4


def test_the_shortest_clip_has_one_frame() -> None:
    policy = make("moonshine")
    least = policy.min_samples / 16000
    assert policy.encode(batch_of(["a"], [least])).num_frames.tolist() == [1]
    with pytest.raises(
        ValueError, match=r"row 'a': 0\.056 s of audio; this model takes 0\.056 to 30"
    ):
        policy.encode(batch_of(["a"], [least - 1e-4]))


def test_longer_clips_by_choice() -> None:
    policy = MoonshinePolicy(SPECS["moonshine"], max_duration_s=1.0)
    with pytest.raises(ValueError, match=r"this model takes 0\.056 to 1\.0 s"):
        policy.encode(batch_of(["a"], [1.1]))
    with pytest.raises(ValueError, match="max_duration_s"):
        MoonshinePolicy(SPECS["moonshine"], max_duration_s=0.0)


def test_it_stops_at_its_last_position() -> None:
    policy = make("moonshine")
    with torch.no_grad():
        policy.allowed[policy.stop_ids] = False
    decoding = Decoding(max_new_tokens=400, min_cap=400)
    rollout = policy.sample(policy.encode(batch_of(["a"])), 2, decoding, SampleKey(0, 0))
    assert rollout.tokens.shape[-1] == 40 - 1
    with pytest.raises(ValueError, match="text has 41 tokens, this model's decoder takes 39"):
        policy.targets(policy.encode(batch_of(["a"])), ["one " * 40])


def sampled(shares_clips: bool, group_size: int) -> Rollout:
    policy = make("moonshine")
    policy.fused_attention = shares_clips
    with torch.no_grad():
        context = policy.encode(batch_of(list("abcd")))
    decoding = Decoding(max_new_tokens=24, min_cap=24, tokens_per_second=0.0)
    return policy.sample(context, group_size, decoding, SampleKey(0, 3))


@pytest.mark.parametrize("group_size", [1, 3])
def test_a_shared_clip_is_masked_as_repeated_ones(group_size: int) -> None:
    shared = sampled(True, group_size)
    repeated = sampled(False, group_size)
    assert torch.equal(shared.tokens, repeated.tokens)
    assert torch.equal(shared.log_probs, repeated.log_probs)
    assert shared.lengths.min() < shared.lengths.max()


def test_a_start_without_its_first_token_is_refused(tmp_path: Path) -> None:
    model, processor = SPECS["moonshine"].build()
    model.generation_config.decoder_start_token_id = None
    model.config.decoder_start_token_id = 1
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not say where a prompt begins"):
        MoonshinePolicy(str(tmp_path))
