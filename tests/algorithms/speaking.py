"""A tiny policy that speaks, a tiny Token2Text that reads its codes, and steps of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl.algorithms import DiffRO, GRPODiffRO, Optim
from lightning_audiorl.engine import RLModule
from lightning_audiorl.losses import MicroBatch
from lightning_audiorl.losses.diffro.loss import PreparedDiffRO
from lightning_audiorl.models import SpeechLMPolicy
from lightning_audiorl.models.policy import SampleKey
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.rewards import DifferentiableMix, Reward, RewardMix, TextLikelihood
from lightning_audiorl.token2text import Token2Text
from lightning_audiorl.types import Decoding, Hypothesis, PromptBatch, Rollout
from tests.models.families import batch_of, make, random_rollout

NUM_CODES = 16
SHORT = Decoding(max_new_tokens=12, min_cap=12, temperature=0.8)


def make_network(
    num_codes: int = NUM_CODES, labels: dict[str, list[str]] | None = None, **sizes: Any
) -> Token2Text:
    """Random weights, lively enough that another code is another likelihood."""
    sizes = {"width": 16, "dilations": (1,), "heads": 2, "decoder_layers": 1} | sizes
    network = Token2Text(num_codes, "eghinorstuvwxz ", labels, **sizes)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if p.ndim > 1:
                p.add_(0.2 * torch.randn(p.shape, generator=keyed_generator("lively", name)))
    return network


def make_mix(**sizes: Any) -> DifferentiableMix:
    """Both forms of the text likelihood."""
    return DifferentiableMix(
        make_network(**sizes), [TextLikelihood(), TextLikelihood("ctc", 0.5, "ctc")]
    )


def make_batch(names: str = "abc") -> PromptBatch:
    """Prompts of a speaker's tone; texts of one to three words."""
    batch = batch_of(list(names), [0.4] * len(names))
    words = ("one", "two one", "three two one")
    rows = tuple(
        replace(row, text=words[i % 3], speaker="ab"[i % 2]) for i, row in enumerate(batch.rows)
    )
    return replace(batch, rows=rows)


class Codes(Reward):
    """The share of codes that are divisible by three."""

    def __init__(self, weight: float = 1.0, name: str = "codes") -> None:
        super().__init__(weight, name)

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        assert all(h.speech is not None for h in hypotheses)
        said = [h.speech.codes for h in hypotheses if h.speech is not None]
        return [float((codes % 3 == 0).float().mean()) if len(codes) else 0.0 for codes in said]


def make_module(
    kind: type[RLModule] = DiffRO, policy: SpeechLMPolicy | None = None, **settings: Any
) -> Any:
    """Gradients unclipped, learning rate constant."""
    settings = {
        "num_steps": 1,
        "group_size": 4,
        "decoding": SHORT,
        "optim": Optim(lr=1e-3, max_grad_norm=0.0),
        "differentiable": make_mix(),
    } | settings
    if kind is GRPODiffRO:
        settings.setdefault("rewards", RewardMix([Codes()]))
    module: Any = kind
    return module(make("speech_lm") if policy is None else policy, **settings)


def make_double_policy() -> SpeechLMPolicy:
    """The tiny policy in float64, its norms too."""
    policy = make("speech_lm").double()
    for norm in policy.modules():
        if type(norm).__name__ == "LlamaRMSNorm":  # which computes in float32, whatever it is given
            norm.forward = partial(_rms_norm, norm)
    return policy


def make_double(**settings: Any) -> Any:
    """As `make_module`, policy and Token2Text in float64."""
    module = make_module(policy=make_double_policy(), **settings)
    module.losses[0].differentiable.network.double()
    return module


def _rms_norm(norm: Any, x: Tensor) -> Tensor:
    return torch.nn.functional.rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)


def sampled(module: Any, names: str = "abc") -> tuple[Any, Rollout, PreparedDiffRO]:
    """Context, a random rollout with ends of speech in it, and what DiffRO learns of it: all of its samples."""
    batch, policy = make_batch(names), module.policy
    context = policy.encode(batch)
    rollout = random_rollout(policy, len(names), module.sampler.group_size)
    last = rollout.lengths - 1
    finished = torch.arange(module.sampler.group_size).expand_as(last) % 2 == 0
    stops = torch.where(
        finished, policy.stop_ids[0], rollout.tokens.gather(-1, last[..., None])[..., 0]
    )
    tokens = rollout.tokens.scatter(-1, last[..., None], stops[..., None])
    rollout = replace(rollout, tokens=tokens, finished=finished)
    return (
        context,
        rollout,
        PreparedDiffRO(
            used=torch.ones_like(finished), key=SampleKey(module.seed, module.rl_step), tau=1.0
        ),
    )


def relaxed_loss(
    module: Any,
    prepared: PreparedDiffRO,
    context: Any,
    rollout: Rollout,
    beta: float,
    tau: float,
    names: str = "abc",
) -> tuple[Tensor, dict[str, Tensor]]:
    """DiffRO's loss of a whole step, summed over its samples, and the sums to be logged."""
    loss = module.losses[-1]
    loss.beta = beta
    micro_batch = MicroBatch(list(range(len(names))), make_batch(names).rows, context, rollout)
    result: tuple[Tensor, dict[str, Tensor]] = loss.compute(
        replace(prepared, tau=tau), micro_batch, 1.0
    )
    return result


def gradient(module: Any, loss: Tensor) -> Tensor:
    """Of the policy's trainable tensors, as one vector; zeros where there is none."""
    parameters = list(module.policy.trainable().values())
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for p, g in zip(parameters, grads, strict=True)
        ]
    )


def assert_numerical_gradient(module: Any, loss: Callable[[], Tensor]) -> None:
    """The gradient of ``loss`` agrees with differences of its values along random directions; wants float64."""
    analytic = gradient(module, loss())
    parameters = list(module.policy.trainable().values())
    start = [p.detach().clone() for p in parameters]
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in start]
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, value, direction in zip(parameters, start, directions, strict=True):
                    p.copy_(value + sign * 1e-6 * direction)
                values.append(float(loss()))
        numeric = (values[0] - values[1]) / 2e-6
        assert float(analytic @ torch.cat([d.flatten() for d in directions])) == pytest.approx(
            numeric, rel=1e-5
        )
