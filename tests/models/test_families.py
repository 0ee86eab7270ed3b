"""What every family promises: one distribution, keyed hypotheses, a shared prompt, and clips that stay apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lightning_audiorl.models import SampleKey
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy
from lightning_audiorl.types import Decoding, PromptBatch, Rollout
from tests.helpers import (
    GRADIENT_RELATIVE_NORM,
    assert_close,
    assert_gradients_close,
    gradient_rounding,
)
from tests.models.families import (
    AUDIO_FAMILIES,
    CASES,
    DECODING,
    FAMILIES,
    SPECS,
    batch_of,
    clip,
    disturb,
    log_probs,
    make,
    prompt_of,
    random_rollout,
)
from tests.models.naive import naive_log_probs
from tests.models.records import RECORDS

KEY = SampleKey(seed=5, rl_step=2)
NAMES = ["a", "b", "c"]


def assert_same_group(actual: Rollout, i: int, expected: Rollout, j: int) -> None:
    """Group ``i`` of one rollout is group ``j`` of another, whatever they are padded to."""
    assert actual.lengths[i].tolist() == expected.lengths[j].tolist()
    assert actual.finished[i].tolist() == expected.finished[j].tolist()
    for g, length in enumerate(actual.lengths[i].tolist()):
        assert actual.tokens[i, g, :length].tolist() == expected.tokens[j, g, :length].tolist()
        assert_close(actual.log_probs[i, g, :length], expected.log_probs[j, g, :length], "policy")


# --- one distribution


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.7},
        {"top_k": 2},
        {"temperature": 1.3, "top_p": 0.8},
        {"temperature": 0.0},
    ],
)
def test_rollout_and_update_log_probs_agree(family: str, changes: dict[str, float]) -> None:
    policy, decoding = make(family), replace(DECODING, **changes)
    context = policy.encode(batch_of(NAMES))
    rollout = policy.sample(context, 4, decoding, KEY)
    scored = log_probs(policy, context, rollout, decoding.temperature)
    assert_close(scored, rollout.log_probs, "policy")
    assert rollout.log_probs[rollout.keep].min() < -0.1, "certain everywhere: this compares nothing"
    assert (rollout.support is not None) == ("top_k" in changes or "top_p" in changes)


def assert_each_gradient_close(
    family: str,
    policy: CachedPromptPolicy,
    batch: PromptBatch,
    rollout: Rollout,
    relative_norm: float,
) -> None:
    """Tensor by tensor, those of the shared prompt against those of every sample alone."""
    parameters = policy.trainable()
    weights = (
        torch.randn(rollout.tokens.shape, generator=torch.Generator().manual_seed(0)) * rollout.keep
    )
    gradients: list[dict[str, Tensor]] = []
    for scored in (
        log_probs(policy, policy.encode(batch), rollout),
        naive_log_probs(family, policy, batch, rollout),
    ):
        (scored * weights).sum().backward()
        gradients.append({name: p.grad for name, p in parameters.items() if p.grad is not None})
        policy.zero_grad()
    shared, naive = gradients
    assert list(shared) == list(naive) == list(parameters)
    rounding = gradient_rounding(naive.values())
    for name, expected in naive.items():
        if expected.norm() < rounding:
            assert shared[name].norm() < rounding, name
        else:
            assert_gradients_close(shared[name], expected, relative_norm)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_equal_the_naive_way(family: str) -> None:
    policy, batch = make(family), batch_of(NAMES)
    rollout = policy.sample(policy.encode(batch), 3, DECODING, KEY)
    assert_close(log_probs(policy, policy.encode(batch), rollout), rollout.log_probs, "policy")
    assert_close(naive_log_probs(family, policy, batch, rollout), rollout.log_probs, "policy")


@pytest.mark.parametrize(("family", "mode"), CASES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_equal_the_naive_way(family: str, mode: str, checkpointing: bool) -> None:
    policy = make(family, mode, lively=False, checkpointing=checkpointing)
    disturb(policy)
    assert_each_gradient_close(
        family, policy, batch_of(NAMES), random_rollout(policy, 3, 3), GRADIENT_RELATIVE_NORM
    )


@pytest.mark.parametrize(("family", "mode"), CASES)
def test_gradients_equal_the_naive_way_in_float64(family: str, mode: str) -> None:
    """A lively policy is too ill-conditioned for float32. What is left is norms and rotations, float32 in any case."""
    policy = make(family, mode)
    disturb(policy)
    assert_each_gradient_close(
        family, policy.double(), batch_of(NAMES), random_rollout(policy, 3, 3), 1e-6
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_targets_score_like_any_rollout(family: str) -> None:
    policy, batch = make(family), batch_of(NAMES)
    context = policy.encode(batch)
    targets = policy.targets(context, ["one two three", "", "zero"])
    assert targets.lengths.tolist() == [[4], [1], [2]]
    assert policy.decode(targets, context) == [["one two three"], [""], ["zero"]]
    assert_close(
        log_probs(policy, context, targets),
        naive_log_probs(family, policy, batch, targets),
        "policy",
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_only_words_and_stop_are_allowed(family: str) -> None:
    policy = make(family)
    names = policy.tokenizer.convert_ids_to_tokens(policy.allowed.nonzero().squeeze(-1).tolist())
    more = RECORDS[family].more_words if family in RECORDS else ()
    assert sorted(names) == sorted([*SPECS[family].words, "<|im_end|>", *more])
    logits = policy.head(torch.randn(2, 3, 32))
    assert torch.equal(torch.isfinite(logits), policy.allowed.expand(2, 3, -1))


# --- keyed hypotheses


@pytest.mark.parametrize("family", FAMILIES)
def test_hypotheses_do_not_depend_on_the_company(family: str) -> None:
    names = list("abcdefgh")
    policy = make(family)
    context = policy.encode(batch_of(names))
    together = policy.sample(context, 3, DECODING, KEY)
    assert len(set(together.lengths.flatten().tolist())) > 3
    order = [5, 2, 7, 0, 1, 6, 4, 3]
    shuffled = policy.sample(policy.encode(batch_of([names[i] for i in order])), 3, DECODING, KEY)
    for place, i in enumerate(order):
        assert_same_group(shuffled, place, together, i)
    for i in (0, 5):
        assert_same_group(
            policy.sample(policy.encode(batch_of([names[i]])), 3, DECODING, KEY), 0, together, i
        )
    pieces = [[3, 6], [1, 0, 2, 7], [4], [5]]
    for piece in pieces:
        part = policy.sample(context.select(piece), 3, DECODING, KEY)
        for place, i in enumerate(piece):
            assert_same_group(part, place, together, i)


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_of_a_group_do_not_depend_on_its_size(family: str) -> None:
    policy = make(family)
    context = policy.encode(batch_of(NAMES))
    large, small = (policy.sample(context, size, DECODING, KEY) for size in (5, 2))
    for b in range(len(NAMES)):
        for g in range(2):
            length = int(small.lengths[b, g])
            assert small.tokens[b, g, :length].tolist() == large.tokens[b, g, :length].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_another_step_gives_other_hypotheses_and_the_same_step_the_same(family: str) -> None:
    policy = make(family)
    context = policy.encode(batch_of(NAMES))
    first, again, later = (
        policy.sample(context, 4, DECODING, key) for key in (KEY, KEY, replace(KEY, rl_step=3))
    )
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.log_probs, again.log_probs)
    assert policy.decode(first, context) != policy.decode(later, context)


@pytest.mark.parametrize("family", FAMILIES)
def test_sampling_restores_training_modes_and_leaves_no_graph(family: str) -> None:
    policy = make(family).train()
    policy.output.eval()
    rollout = policy.sample(policy.encode(batch_of(NAMES)), 2, DECODING, KEY)
    assert policy.training
    assert policy.backbone.training
    assert not policy.output.training
    assert not rollout.log_probs.requires_grad


@pytest.mark.parametrize("family", AUDIO_FAMILIES)
def test_caps_are_proportional_to_the_audio(family: str) -> None:
    policy = make(family)
    with torch.no_grad():
        policy.allowed[policy.stop_ids] = False
    rollout = policy.sample(
        policy.encode(batch_of(NAMES, [0.5, 1.0, 1.5])),
        2,
        Decoding(tokens_per_second=4.0, min_cap=3),
        KEY,
    )
    assert rollout.lengths.tolist() == [[5, 5], [7, 7], [9, 9]]
    assert not rollout.finished.any()


def test_whisper_stops_at_its_last_position() -> None:
    policy = make("whisper")
    with torch.no_grad():
        policy.allowed[policy.stop_ids] = False
    context = policy.encode(batch_of(["a"]))
    rollout = policy.sample(context, 2, Decoding(max_new_tokens=400, min_cap=400), KEY)
    assert rollout.tokens.shape[-1] == SPECS["whisper"].max_target_positions - 4
    assert_close(log_probs(policy, context, rollout), rollout.log_probs, "policy")


# --- clips stay apart


def changed(batch: PromptBatch, i: int, duration_s: float | None = None) -> PromptBatch:
    """The batch with another clip and another prompt (and perhaps another length) for row ``i``."""
    old = batch.rows[i]
    num = (
        int(batch.num_samples[i]) if duration_s is None else int(duration_s * batch.sample_rate_hz)
    )
    clips = [batch.waveform[k, : int(n)] for k, n in enumerate(batch.num_samples)]
    clips[i] = clip("another", 2.0)[:num]
    words = (
        "three " + old.extra["prompt"]
        if duration_s
        else "three " + old.extra["prompt"].partition(" ")[2]
    )
    rows = [*batch.rows[:i], replace(old, extra={"prompt": words}), *batch.rows[i + 1 :]]
    num_samples = torch.tensor([len(wave) for wave in clips])
    waveform = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    return PromptBatch(waveform, num_samples, batch.sample_rate_hz, tuple(rows))


@pytest.mark.parametrize(("family", "mode"), CASES)
@pytest.mark.parametrize(
    ("training", "checkpointing"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_a_clip_moves_the_log_probs_of_its_own_group_only(
    family: str, mode: str, training: bool, checkpointing: bool
) -> None:
    policy, batch = make(family, mode, checkpointing=checkpointing), batch_of(list("dabc"))
    rollout = random_rollout(policy, len(batch), 3)
    policy.train(training)
    before = log_probs(policy, policy.encode(batch), rollout)
    for i in (0, 2):
        for duration_s in (None, 1.7):
            after = log_probs(policy, policy.encode(changed(batch, i, duration_s)), rollout)
            moved = (after - before).abs().amax(-1)
            assert (moved[i] > 1e-2).all(), (
                f"clip {i} is not heard by its own samples: {moved[i].tolist()}"
            )
            others = [b for b in range(len(batch)) if b != i]
            same_shapes = (
                duration_s is None and family != "text_lm"
            )  # there another prompt may be a longer one
            assert_close(after[others], before[others], "exact" if same_shapes else "policy")


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_do_not_depend_on_the_longest_clip(family: str) -> None:
    policy = make(family)
    short, long = batch_of(["d"], [0.5]), batch_of(["d", "b"], [0.5, 1.9])
    rollout = random_rollout(policy, 2, 3)
    alone = log_probs(policy, policy.encode(short), rollout.select([0]))
    together = log_probs(policy, policy.encode(long), rollout)[:1, :, : alone.shape[-1]]
    assert_close(alone, together, "policy")


def test_fun_asr_adaptor_without_its_mask_would_hear_the_padding() -> None:
    """The check above has teeth: it fails on the adaptor as transformers configures it by default."""
    policy = make("fun_asr_nano")
    policy.model.model.multi_modal_projector.config._attn_implementation = None
    batch = batch_of(["d", "b"], [0.5, 1.9])
    rollout = random_rollout(policy, 2, 3)
    alone = log_probs(policy, policy.encode(batch.select([0])), rollout.select([0]))
    together = log_probs(policy, policy.encode(batch), rollout)[:1, :, : alone.shape[-1]]
    with pytest.raises(AssertionError, match="not close"):
        assert_close(alone, together, "policy")


# --- contexts


@pytest.mark.parametrize("family", FAMILIES)
def test_contexts_select_move_and_know_their_size(family: str) -> None:
    policy = make(family)
    batch = batch_of(list("abcd"))
    context = policy.encode(batch)
    rollout = policy.sample(context, 2, DECODING, KEY)
    assert len(context) == policy.num_encoded == 4
    index = [3, 1]
    part = context.select(index).to("cpu")
    assert part.ids == ["d", "b"]
    assert part.durations_s == pytest.approx([batch.rows[i].duration_s for i in index], abs=1e-4)
    scored = log_probs(policy, part, rollout.select(index))
    assert_close(scored, rollout.select(index).log_probs, "policy")
    layout, _ = policy.packed(part, rollout.select(index).tokens)
    assert part.prompt_lengths == layout.keep.sum(-1).tolist()
    assert context.prompt_lengths == [
        policy.encode(batch.select([i])).prompt_lengths[0] for i in range(4)
    ]
    tensors = [value for value in vars(context).values() if isinstance(value, Tensor)]
    assert context.num_bytes == sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def test_prompts_are_the_texts_where_there_is_no_prompt() -> None:
    policy = make("text_lm")
    batch = batch_of(["a"])
    plain = replace(batch, rows=(replace(batch.rows[0], text=prompt_of("a"), extra={}),))
    assert policy.encode(plain).tokens == policy.encode(batch).tokens
