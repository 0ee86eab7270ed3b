"""CSM: the first codes learn, the others follow: keyed, kept with the sample, frozen; frames to speech and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl.algorithms import GRPO, SFT, Optim
from lightning_audiorl.models import CsmPolicy, SampleKey, TinyCsm
from lightning_audiorl.models.policy import require_speech_policy
from lightning_audiorl.models.tts.frames import FrameState, whole_frames
from lightning_audiorl.rewards import RewardMix
from lightning_audiorl.strategies import PhaseSingleDevice
from lightning_audiorl.types import Decoding, PromptBatch, Rollout
from tests.algorithms.tiny import fit
from tests.helpers import assert_close
from tests.models.families import disturb, log_probs
from tests.models.test_speech_lm import LowTones
from tests.models.tts_records import batch_of, csm_inputs, make, random_rollout

KEY = SampleKey(seed=3, rl_step=1)
DECODING = Decoding(max_new_tokens=6, min_cap=6)


def sampled(policy: Any, names: list[str], group_size: int = 2, **how: Any) -> tuple[Any, Rollout]:
    context = policy.encode(batch_of("csm", names))
    return context, policy.sample(context, group_size, replace(DECODING, **how), KEY)


def test_the_interface_says_what_learns() -> None:
    policy = make("csm")
    assert policy.speaks
    assert (policy.num_codebooks, policy.learning_codebooks) == (4, (0,))
    with pytest.raises(
        ValueError, match=r"CsmPolicy is no SpeechPolicy: it speaks 4 codes at once"
    ):
        require_speech_policy(policy, "DiffRO")


@pytest.mark.parametrize("mode", ["all", "last", "lora"])
def test_depth_decoder_codec_and_embedding_of_codes_are_frozen(mode: str) -> None:
    policy = make("csm", mode)
    held = [policy.model.depth_decoder, policy.codec, policy.embed]
    assert not any(p.requires_grad for part in held for p in part.parameters())
    assert all(
        name.startswith(("model.backbone", "model.lm", "model.embed_text"))
        for name in policy.trainable()
    )
    assert policy.model.embed_text_tokens.weight.requires_grad == (mode == "all")

    disturb(policy)
    context, rollout = policy.encode(batch_of("csm", ["a"])), random_rollout(policy, 1, 2)
    log_probs(policy, context, rollout).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in policy.trainable().values())
    # Together the parts hold every parameter, of which no two parts have the same one.
    parts = [
        {id(p) for m in modules for p in m.parameters()} for modules in policy.parts().values()
    ]
    assert set.union(*parts) == {id(p) for p in policy.parameters()}
    assert sum(map(len, parts)) == len(set.union(*parts))


def test_the_codes_that_follow_are_keyed() -> None:
    policy = make("csm")
    _, rollout = sampled(policy, ["a", "b"], group_size=3)
    assert rollout.following is not None
    assert rollout.following.shape == (*rollout.tokens.shape, 3)

    _, alone = sampled(policy, ["b"], group_size=2)
    assert torch.equal(whole_frames(alone)[0], whole_frames(rollout)[1, :2])
    _, again = sampled(policy, ["a", "b"], group_size=3)
    assert torch.equal(whole_frames(again), whole_frames(rollout))
    other = policy.sample(
        policy.encode(batch_of("csm", ["a"])), 3, DECODING, replace(KEY, rl_step=2)
    )
    assert not torch.equal(whole_frames(other)[0], whole_frames(rollout)[0])


def test_what_follows_may_be_greedy() -> None:
    """The same first code of the same state is then followed by the same codes, whichever sample it is of."""
    policy = make("csm")
    policy.depth_temperature = 0.0
    _, rollout = sampled(policy, ["a"], group_size=16)
    first = whole_frames(rollout)[0, :, 0].tolist()
    assert len({frame[0] for frame in first}) < 16
    assert len({tuple(frame) for frame in first}) == len({frame[0] for frame in first})

    policy.depth_temperature = None
    _, rollout = sampled(policy, ["a"], group_size=16)
    first = whole_frames(rollout)[0, :, 0].tolist()
    assert len({tuple(frame) for frame in first}) > len({frame[0] for frame in first})


def test_log_probs_are_of_first_codes_and_read_whole_frames() -> None:
    policy = make("csm")
    context, rollout = sampled(policy, ["a"], group_size=1)
    assert rollout.following is not None
    changed = rollout.following.clone()
    changed[0, 0, 2] = (changed[0, 0, 2] + 1) % 16
    with torch.no_grad():
        scored = log_probs(policy, context, rollout)
        other = log_probs(policy, context, replace(rollout, following=changed))
    assert_close(scored[rollout.keep], rollout.log_probs[rollout.keep], "policy")
    # The third frame's last code: seen from the fourth on.
    assert torch.equal(other[0, 0, :3], scored[0, 0, :3])
    assert (other[0, 0, 3:] - scored[0, 0, 3:]).abs().min() > 1e-4

    with pytest.raises(ValueError, match="without the codes that follow the first one"):
        policy.hidden(context, replace(rollout, following=None))


def test_a_frame_ends_speech_and_not_its_first_code(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make("csm")
    frames = [[0, 5, 0, 1], [0, 0, 0, 7]]
    # The first code is 0 each time, and each time other codes follow.
    monkeypatch.setattr(
        policy, "head", lambda hidden: 100.0 * (torch.arange(19) == 0).expand(len(hidden), -1)
    )
    monkeypatch.setattr(
        FrameState, "_followed", lambda self, tokens: torch.tensor([frames[len(self._kept)]])
    )
    context, rollout = sampled(policy, ["a"], group_size=1)
    assert rollout.tokens.tolist() == [[[0, 0]]]
    assert whole_frames(rollout)[0, 0].tolist() == frames
    assert rollout.finished.all()

    # What ends speech is not heard; the frame before it is.
    spoken = policy.decode(rollout, context)[0][0]
    assert spoken.codes.tolist() == [0]
    alone = policy.codec.decode(torch.tensor(frames[:1]).T[None]).audio_values[0, 0]
    assert_close(spoken.waveform, alone, "policy")
    assert spoken.waveform.shape == (1920,)
    assert spoken.sample_rate_hz == 24000


def test_nothing_said_is_an_empty_waveform() -> None:
    policy = make("csm")
    context, rollout = sampled(policy, ["a"], group_size=2)
    one = replace(rollout.select([0]), finished=torch.tensor([[True, False]]))
    tokens = one.tokens[:, :, :1]
    following = one.following[:, :, :1] if one.following is not None else None
    short = Rollout(
        tokens, one.keep[:, :, :1], one.log_probs[:, :, :1], one.finished, following=following
    )
    empty, spoken = policy.decode(short, context)[0]
    assert empty.waveform.shape == (0,)
    assert spoken.waveform.shape == (1920,)


def test_prompts_are_those_of_its_processor() -> None:
    """Token for token, the placeholders as many as the frames; and the codec's frames behind them."""
    policy = make("csm")
    for name, seconds in (("a", 0.5), ("b", 0.21), ("c", 1.37)):
        batch = batch_of("csm", [name], [seconds])
        context, inputs = policy.encode(batch), csm_inputs(policy.processor, batch)
        assert context.tokens == inputs["input_ids"].tolist()
        embeds, mask = policy.prompt(context, "right")
        inputs.pop("attention_mask")
        own = policy.model._merge_input_ids_with_input_values(**inputs)["inputs_embeds"]
        assert torch.equal(embeds, own)
        assert mask.all()


def test_rollouts_select_and_join_with_what_follows() -> None:
    policy = make("csm")
    rollout = random_rollout(policy, 3, 2)
    assert rollout.following is not None
    halves = [rollout.select([2]), rollout.select([0, 1])]
    joined = halves[1].join(halves[:1])
    assert torch.equal(joined.following[joined.keep], rollout.following[rollout.keep])
    with pytest.raises(ValueError, match="some have following, others have none"):
        halves[0].join([replace(halves[1], following=None)])


# --- training


def spoken_batch(names: list[str]) -> PromptBatch:
    batch = batch_of("csm", names)
    lengths = torch.tensor([1920 * (2 + i) for i in range(len(names))])
    waves = [batch.waveform[i, :num] for i, num in enumerate(lengths.tolist())]
    recordings = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    return replace(batch, target_waveform=recordings, target_num_samples=lengths)


def test_recordings_are_targets_of_whole_frames() -> None:
    policy, batch = make("csm"), spoken_batch(["a", "b"])
    context = policy.encode(batch)
    targets = policy.targets(context, batch.texts)
    assert targets.lengths.tolist() == [[3], [4]]
    frames = whole_frames(targets)
    assert frames[1, 0, :3].tolist() == context.target_frames[1]
    assert frames[0, 0, 2].tolist() == [0] * 4
    assert policy.num_encoded == 4
    with torch.no_grad():
        assert log_probs(policy, context, targets)[targets.keep].isfinite().all()

    with pytest.raises(ValueError, match=r"row 'a': no recording of its text to learn from"):
        policy.targets(policy.encode(batch_of("csm", ["a"])), ["one two"])


def grpo() -> GRPO:
    settings: dict[str, Any] = {"group_size": 4, "beta": 0.04, "decoding": DECODING}
    settings |= {"micro_batch_size": 1, "optim": Optim(lr=1e-3)}
    return GRPO(make("csm"), 2, rewards=RewardMix([LowTones()]), **settings)


def sft() -> SFT:
    return SFT(make("csm"), 2, optim=Optim(lr=1e-3), micro_batch_size=1)


@pytest.mark.parametrize("kind", [grpo, sft])
def test_two_steps_move_the_backbone_alone_wherever_parts_are(kind: Callable[[], Any]) -> None:
    module = kind()
    before = {name: value.clone() for name, value in module.policy.state_dict().items()}
    batches = [spoken_batch(["a", "b"]) for _ in range(2)]
    plain = fit(module, batches)
    placed = fit(kind(), batches, strategy=PhaseSingleDevice("offload"))
    assert plain.metrics[0]["grad_norm"] > 0
    if kind is grpo:
        assert plain.metrics[0]["kl"] == 0 < plain.metrics[1]["kl"]

    after = module.policy.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == set(module.policy.trainable())
    for one, other in zip(plain.weights, placed.weights, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


# --- bad input


def test_bad_prompts_are_refused_by_name() -> None:
    policy, batch = make("csm"), batch_of("csm", ["a"])
    row = batch.rows[0]

    def refused(match: str, changed: Any = row, **fields: Any) -> None:
        with pytest.raises(ValueError, match=match):
            policy.encode(replace(batch, rows=(changed,), **fields))

    refused("row 'a': a speaker prompt without its text", replace(row, extra={}))
    refused(r"row 'a': text 'What\?' is outside the tokenizer's", replace(row, text="What?"))
    refused("row 'a': text 'one<|AUDIO|>' contains", replace(row, text="one<|AUDIO|>"))
    refused("row 'a': text and speaker prompt are .* tokens", replace(row, text="one " * 99))
    refused("the codec wants 24000 Hz audio, got 16000", sample_rate_hz=16000)
    with pytest.raises(ValueError, match=r"CsmPolicy.depth_temperature"):
        CsmPolicy(TinyCsm(), depth_temperature=-1.0)


def test_a_text_alone_is_spoken_by_whomever() -> None:
    policy, batch = make("csm"), batch_of("csm", ["a"])
    alone = replace(batch, waveform=torch.zeros(1, 0), num_samples=torch.tensor([0]))
    alone = replace(alone, rows=(replace(batch.rows[0], segments=(), extra={}),))
    context = policy.encode(alone)
    assert context.frames == [[]]
    assert policy.num_encoded == 0
    spoken: Tensor = policy.decode(policy.sample(context, 1, DECODING, KEY), context)[0][0].waveform
    assert spoken.isfinite().all()
