"""One training step for every family: the algorithm does not know which it trains."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from lightning_audiorl.algorithms import GRPO, SFT, Optim
from lightning_audiorl.models import Finetune, Policy, TextLMPolicy, TinyCausalLM
from lightning_audiorl.rewards import Accuracy, RewardMix
from lightning_audiorl.types import Decoding, PromptBatch
from tests.algorithms.tiny import Judge, Recorder, fit, flat, trainable
from tests.models.families import AUDIO_FAMILIES, DECODING, FAMILIES, WORDS, batch_of, make

NUM_STEPS = 2


def batches() -> list[PromptBatch]:
    return [batch_of(["a", "b", "c"]), batch_of(["d", "e", "f"])]


def grpo(policy: Policy, **settings: Any) -> GRPO:
    settings = {
        "rewards": RewardMix([Accuracy(floor=-1.0), Judge(weight=0.1)]),
        "group_size": 3,
        "decoding": DECODING,
        "beta": 0.04,
        "optim": Optim(lr=1e-3),
    } | settings
    return GRPO(policy, NUM_STEPS, **settings)


def assert_trained(recorder: Recorder, start: torch.Tensor) -> None:
    assert len(recorder.metrics) == NUM_STEPS
    for metrics in recorder.metrics:
        assert math.isfinite(metrics["loss"])
        assert 0 < metrics["grad_norm"] < math.inf
    weights = [start, *(flat(step) for step in recorder.weights)]
    for before, after in itertools.pairwise(weights):
        assert torch.isfinite(after).all()
        assert not torch.equal(before, after)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "settings",
    [{}, {"num_updates": 2, "micro_batch_size": 1, "rollout_batch_size": 2, "chunk_size": 5}],
    ids=["plain", "in pieces"],
)
def test_grpo_trains_every_family(family: str, settings: dict[str, Any]) -> None:
    policy = make(family)
    start = flat(trainable(policy))
    recorder = fit(grpo(policy, **settings), batches())
    assert_trained(recorder, start)
    first, second = recorder.metrics
    assert first["kl"] == 0 if not settings else first["kl"] > 0
    assert second["kl"] > 0
    assert second["entropy"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_sft_trains_every_family(family: str) -> None:
    policy = make(family)
    start = flat(trainable(policy))
    assert_trained(fit(SFT(policy, NUM_STEPS, optim=Optim(lr=1e-3)), batches()), start)


@contextmanager
def counted_rows(encoder: nn.Module) -> Iterator[list[int]]:
    """The rows of every forward pass of an encoder."""
    rows: list[int] = []

    def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rows.append(len(args[0] if args else kwargs["input_features"]))

    handle = encoder.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()


@pytest.mark.parametrize("family", AUDIO_FAMILIES)
@pytest.mark.parametrize(
    ("group_size", "settings"),
    [
        (2, {}),
        (5, {"num_updates": 3, "micro_batch_size": 1, "rollout_batch_size": 1, "sampler_cap": 2.0}),
    ],
)
def test_each_clip_is_encoded_once_per_step(
    family: str, group_size: int, settings: dict[str, Any]
) -> None:
    policy: Any = make(family)
    (encoder,) = policy.roles.encoder
    with counted_rows(encoder) as rows:
        fit(grpo(policy, group_size=group_size, **settings), batches())
    assert sum(rows) == 3 * NUM_STEPS
    assert policy.num_encoded == 3 * NUM_STEPS


def test_the_reward_goes_up() -> None:
    """A text model that is paid for every "two" among its words learns to say nothing else."""
    spec = TinyCausalLM(WORDS, width=32, layers=1, heads=2, max_positions=32)
    policy = TextLMPolicy(spec, Finetune(projector=False))

    def share_of_two(text: str) -> float:
        words = text.split()
        return words.count("two") / len(words) if words else 0.0

    num_steps = 30
    module = GRPO(
        policy,
        num_steps,
        rewards=RewardMix([Judge(share_of_two)]),
        group_size=8,
        decoding=Decoding(max_new_tokens=6),
        beta=0.01,
        optim=Optim(lr=5e-3),
    )
    recorder = fit(module, [batch_of(["a", "b"]) for _ in range(num_steps)])
    rewards = [metrics["reward/mean"] for metrics in recorder.metrics]
    first, last = sum(rewards[:5]) / 5, sum(rewards[-5:]) / 5
    assert first < 0.5
    assert last > 0.9
