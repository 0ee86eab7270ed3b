"""Five optimiser steps on a fixed rollout: the shared prefix ends where every sample computed alone does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy
from lightning_audiorl.models.policy import SampleKey
from lightning_audiorl.types import PromptBatch, Rollout
from tests.helpers import gradient_rounding
from tests.models.families import DECODING, FAMILIES, batch_of, log_probs, make
from tests.models.naive import naive_log_probs

LogProbs = Callable[[CachedPromptPolicy, PromptBatch, Rollout], Tensor]


def trained(family: str, rollout: Rollout, batch: PromptBatch, score: LogProbs) -> Tensor:
    """All trainable weights after five steps of a policy gradient with fixed advantages."""
    policy = make(family)
    optimizer = torch.optim.AdamW(policy.trainable().values(), lr=1e-3)
    advantages = torch.linspace(-1, 1, rollout.tokens.shape[1])[None, :, None]
    for _ in range(5):
        terms = torch.where(rollout.keep, score(policy, batch, rollout) * advantages, 0.0)
        (-terms.sum() / rollout.keep.sum()).backward()
        forget_rounding(policy)
        optimizer.step()
        optimizer.zero_grad()
    return flat(policy)


def forget_rounding(policy: CachedPromptPolicy) -> None:
    """AdamW takes a whole step by a gradient that is 0 but for rounding, each way its own."""
    parameters = [p for p in policy.trainable().values() if p.grad is not None]
    rounding = gradient_rounding(p.grad for p in parameters if p.grad is not None)
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.norm() < rounding:
            parameter.grad = None


def flat(policy: CachedPromptPolicy) -> Tensor:
    return torch.cat([p.detach().flatten() for p in policy.trainable().values()])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shared_prefix_ends_where_the_naive_way_does(family: str) -> None:
    batch = batch_of(["a", "b", "c"])
    policy = make(family)
    rollout = policy.sample(policy.encode(batch), 4, DECODING, SampleKey(0, 0))

    def shared(policy: CachedPromptPolicy, batch: PromptBatch, rollout: Rollout) -> Tensor:
        return log_probs(policy, policy.encode(batch), rollout)

    def naive(policy: CachedPromptPolicy, batch: PromptBatch, rollout: Rollout) -> Tensor:
        return naive_log_probs(family, policy, batch, rollout)

    start, one, other = (
        flat(policy),
        *(trained(family, rollout, batch, way) for way in (shared, naive)),
    )
    moved, apart = float((one - start).norm()), float((one - other).norm())
    print(f"{family}: weights moved {moved:.3g}, the two ways end {apart:.2g} apart")
    assert moved > 0
    assert apart < 0.01 * moved
