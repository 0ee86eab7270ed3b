"""DiffRO through time: the first codes of a sample are read relaxed by the language model too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl import ops
from lightning_audiorl.algorithms import DiffRO, GRPODiffRO, PositiveAdvantage, Relaxation
from lightning_audiorl.losses import ReferenceStates
from lightning_audiorl.losses.diffro import loss as diffro_loss
from lightning_audiorl.losses.diffro.unrolled import unrolled_states
from lightning_audiorl.rewards import RewardMix
from lightning_audiorl.strategies import PhaseSingleDevice
from tests.algorithms.speaking import (
    NUM_CODES,
    Codes,
    assert_numerical_gradient,
    gradient,
    make_batch,
    make_double,
    make_module,
    relaxed_loss,
    sampled,
)
from tests.algorithms.tiny import Recorder, fit
from tests.helpers import assert_close, assert_gradients_close
from tests.models.families import make

TAU = 0.7


def whole_loss(
    module: Any, beta: float = 0.0, step: Any = None
) -> tuple[Tensor, dict[str, Tensor]]:
    context, rollout, plain = sampled(module)
    return relaxed_loss(module, step or plain, context, rollout, beta, TAU)


def at(module: Any, unrolled: int) -> Any:
    """The same module with another setting."""
    module.losses[0].relaxation = replace(module.losses[0].relaxation, unrolled=unrolled)
    return module


def with_reference(module: Any) -> Any:
    """A step with another model's states for reference."""
    other = make("speech_lm").to(next(module.policy.parameters()).dtype)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(0.9)
    context, rollout, step = sampled(module)
    states = other.hidden(context, rollout).detach().unflatten(0, rollout.finished.shape)
    return replace(step, reference=ReferenceStates(states, other.output))


def naive_reward(module: Any) -> Tensor:
    """The reward of all samples, one by one, each position a forward pass over everything before it."""
    policy, how, mix = module.policy, module.losses[0].relaxation, module.losses[0].differentiable
    context, rollout, _ = sampled(module)
    table = policy.embed.weight[[*policy.code_to_token.tolist(), policy.stop_ids[0]]]
    rewards = []
    for b, g in torch.ones_like(rollout.finished).nonzero().tolist():
        heard, _ = policy.prompt(context.select([b]), "right")
        codes = []
        for t in range(int(rollout.lengths[b, g])):
            state = policy.backbone(inputs_embeds=heard).last_hidden_state[:, -1]
            token = rollout.tokens[b, g, t]
            own = policy.token_to_code[token] % 17  # -1, the end, is class 16
            is_code = bool(own < 16)
            logits = policy.head(state) / module.sampler.decoding.temperature
            classes = ops.code_logits(
                logits, policy.code_to_token, policy.stop_ids, how.stop == "relaxed"
            )
            heard_next = policy.embed(token)
            if is_code or how.stop == "relaxed":
                key = ("relax", module.seed, module.rl_step, make_batch().rows[b].id, g, t)
                draws = ops.keyed_exponentials([key], how.num_draws, 17)
                fresh = how.noise == "fresh"
                noise = (
                    ops.gumbel_noise(draws)
                    if fresh
                    else ops.posterior_noise(classes, own[None], draws)
                )
                codes.append(ops.relax(classes, TAU, noise, how.form))
                heard_next = codes[-1][0] @ table if t < how.unrolled else heard_next
            heard = torch.cat([heard, heard_next[None, None]], dim=1)
        embedded = ops.soft_embedding(torch.cat(codes), mix.network.table)[None]
        rewards.append(
            mix.score(embedded, torch.tensor([len(codes)]), [make_batch().rows[b]])[0].sum()
        )
    return torch.stack(rewards).sum()


# --- the gradient


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_gradient_through_time_is_the_numerical_one(beta: float) -> None:
    """Of the whole objective, soft codes at fixed noise, in float64, along random directions."""
    module = make_double(relaxation=Relaxation(form="soft", noise="fresh", num_draws=2, unrolled=3))
    step = with_reference(module) if beta else None
    assert_numerical_gradient(module, lambda: whole_loss(module, beta, step)[0])


@pytest.mark.parametrize(
    "how",
    [
        Relaxation(form="soft", noise="fresh", unrolled=3),
        Relaxation(form="soft", num_draws=2, unrolled=2),
        Relaxation(unrolled=3),
        Relaxation(unrolled=99, num_draws=2),
        Relaxation(form="straight_through", noise="fresh", unrolled=2),
        Relaxation(form="soft", stop="excluded", unrolled=3),
        Relaxation(unrolled=1, stop="excluded"),
    ],
)
def test_it_is_a_rollout_one_position_at_a_time(how: Relaxation) -> None:
    """Values and gradients of a loop over samples and positions; and the terms through time are no rounding error."""
    module = make_double(relaxation=how)
    loss = whole_loss(module)[0]
    naive = -naive_reward(module)
    assert_close(loss.detach(), naive.detach(), "float64")
    through_time = gradient(module, loss)
    assert_gradients_close(through_time, gradient(module, naive), 1e-9)
    forced = gradient(module, whole_loss(at(module, 0))[0])
    assert (through_time - forced).norm() > 0.02 * forced.norm()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_straight_through_at_posterior_noise_keeps_every_value(precision: str) -> None:
    """The loss and its parts are those of teacher forcing, bit for bit; the gradient is not."""
    module = make_module(relaxation=Relaxation(num_draws=2))
    step = with_reference(module)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        (forced, figures), (loss, unrolled) = (
            whole_loss(at(module, num), 0.3, step) for num in (0, 3)
        )
        assert_close(loss.detach(), forced.detach(), "exact")
        assert set(figures) == set(unrolled)
        for name, value in figures.items():
            assert_close(unrolled[name], value, "exact")
        gradients = [gradient(module, value) for value in (forced, loss)]
    assert (gradients[1] - gradients[0]).norm() > 0.02 * gradients[0].norm()


@pytest.mark.parametrize("how", [Relaxation(), Relaxation(form="soft", noise="fresh")])
def test_the_kl_stays_that_of_the_sample(how: Relaxation) -> None:
    """The reference has read the sample's codes; so has the policy that it is compared with, gradient included."""
    module = make_double(relaxation=how)
    step = with_reference(module)
    figures, gradients = [], []
    for num in (0, 3):
        loss, of_loss = whole_loss(at(module, num), 0.3, step)
        figures.append(of_loss)
        gradients.append(gradient(module, loss - whole_loss(module)[0]))
    assert_close(figures[1]["kl"], figures[0]["kl"], "exact")
    assert_gradients_close(gradients[1], gradients[0], 1e-9)
    assert (
        figures[1]["reward/diffro/total"] == figures[0]["reward/diffro/total"]
    ) == how.keeps_values


@pytest.mark.parametrize("mode", ["lora", "checkpointing"])
def test_ways_to_train(mode: str) -> None:
    """Adapters take the terms through time too, and layers computed again give the same."""
    modes: dict[str, Any] = {"lora": {"mode": "lora"}, "checkpointing": {"checkpointing": True}}
    module = make_module(policy=make("speech_lm", **modes[mode]), relaxation=Relaxation(unrolled=3))  # type: ignore[arg-type]
    through_time = gradient(module, whole_loss(module)[0])
    forced = gradient(module, whole_loss(at(module, 0))[0])
    assert (through_time - forced).norm() > 0.02 * forced.norm()
    if mode == "checkpointing":
        plain = make_module(relaxation=Relaxation(unrolled=3))
        assert_gradients_close(through_time, gradient(plain, whole_loss(plain)[0]))


# --- what the language model reads


def read_by(module: Any, rollout: Any = None, names: str = "abc", step: Any = None) -> list[Tensor]:
    """The embedded completions of every pass, in order."""
    seen: list[Tensor] = []
    hidden_of = module.policy.hidden_of
    context, own, plain = sampled(module, names)

    def spy(context: Any, embedded: Tensor) -> Tensor:
        seen.append(embedded.detach())
        return hidden_of(context, embedded)

    module.policy.hidden_of = spy
    try:
        relaxed_loss(module, step or plain, context, rollout or own, 0.0, TAU, names)
    finally:
        module.policy.hidden_of = hidden_of
    return seen


def test_only_the_first_codes_are_relaxed_and_only_where_something_follows() -> None:
    module = make_module(relaxation=Relaxation(form="soft", unrolled=3))
    _, rollout, step = sampled(module)
    passes = read_by(module)
    assert [x.shape[2] for x in passes] == [0, 1, 2, 7]
    own = module.policy.embed(rollout.tokens[:, :, :-1]).detach()
    moved = (passes[-1] != own).any(-1)
    follows = rollout.keep[:, :, 1:] & (torch.arange(7) < 3)
    assert (
        follows.any(-1).sum() > (follows.sum(-1) == 3).sum() > 0
    )  # some rows are shorter, some not
    assert (moved == follows).all()
    used = torch.zeros_like(step.used)
    used[1, 2] = used[2, 0] = True
    some = read_by(module, step=replace(step, used=used))[-1]
    assert ((some != own).any(-1) == (follows & used[..., None])).all()


def test_a_code_moves_what_is_read_after_it_in_its_own_sample_alone() -> None:
    module = make_module(relaxation=Relaxation(form="soft", unrolled=4))
    _, rollout, _ = sampled(module)
    b, g = (rollout.lengths >= 6).nonzero()[0].tolist()
    tokens = rollout.tokens.clone()
    other = (module.policy.token_to_code[tokens[b, g, 2]] + 5) % 16
    tokens[b, g, 2] = module.policy.code_to_token[other]
    before, after = (read_by(module, r)[-1] for r in (rollout, replace(rollout, tokens=tokens)))
    moved = (before != after).any(-1)
    expected = torch.zeros_like(moved)
    expected[b, g, 2:4] = True
    assert (moved == expected).all()


def test_a_prompt_moves_its_own_samples_alone() -> None:
    """Of a soft rollout; the first relaxed code reads nothing but the prompt."""
    module = make_module(relaxation=Relaxation(form="soft", noise="fresh", unrolled=2))
    seen = [read_by(module, names=names)[-1] for names in ("abc", "adc")]
    moved = (seen[0] - seen[1]).abs().amax(-1) > 1e-4
    _, rollout, _ = sampled(module)
    assert not moved[[0, 2]].any()
    assert (moved[1, :, 0] == rollout.keep[1, :, 1]).all()


def test_without_it_no_code_is_read_relaxed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_module()
    assert module.losses[0].relaxation.unrolled == 0
    for name in ("embedded", "hidden_of"):
        monkeypatch.setattr(module.policy, name, None)
    assert whole_loss(module)[0].requires_grad


def test_the_steps_hold_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing as wide as the vocabulary or the codes is kept for the backward pass."""
    module = make_module(relaxation=Relaxation(unrolled=3))
    saved: list[torch.Size] = []

    def note(x: Tensor) -> Tensor:
        saved.append(x.shape)
        return x

    def watched(*args: Any) -> Tensor:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            return unrolled_states(*args)

    monkeypatch.setattr(diffro_loss, "unrolled_states", watched)
    whole_loss(module)
    assert len(saved) > 100
    wide = len(module.policy.allowed), NUM_CODES + 1
    assert not [shape for shape in saved if len(shape) > 1 and shape[-1] in wide]


# --- the step, cut up in any way


def run(trainer: dict[str, Any] | None = None, kind: Any = DiffRO, **settings: Any) -> Recorder:
    settings = {"beta": 0.2, "relaxation": Relaxation(num_draws=2, unrolled=3)} | settings
    module = make_module(kind, make("speech_lm"), num_steps=2, **settings)
    return fit(module, [make_batch(), make_batch("def")], **(trainer or {}))


@pytest.fixture(scope="module")
def whole() -> Recorder:
    return run()


@pytest.mark.parametrize(
    "settings",
    [{"micro_batch_size": 1}, {"max_tokens": 40}, {"chunk_size": 3}, {"rollout_batch_size": 1}],
)
def test_cutting_changes_nothing(whole: Recorder, settings: dict[str, int]) -> None:
    cut_up = run(**settings)
    assert whole.metrics[0]["kl"] == cut_up.metrics[0]["kl"] == 0
    for step in range(2):
        assert_gradients_close(cut_up.gradient(step), whole.gradient(step), 1e-4)
        for name in ("kl", "reward/diffro/total", "entropy", "loss"):
            assert cut_up.metrics[step][name] == pytest.approx(
                whole.metrics[step][name], rel=1e-5, abs=1e-5
            )


def test_phases_change_no_number(whole: Recorder) -> None:
    phased = run({"strategy": PhaseSingleDevice(placement="offload")})
    assert_close(phased.gradient(1), whole.gradient(1), "exact")


def test_beside_grpo_the_gradients_add_up() -> None:
    both, grpo = (run(kind=GRPODiffRO, diffro_weight=weight) for weight in (1.0, 0.0))
    diffro = run(beta=0.0, rewards=RewardMix([Codes()]), diffro_filters=[PositiveAdvantage()])
    assert_gradients_close(both.gradient(), grpo.gradient() + diffro.gradient())
    assert both.metrics[0]["grad_norm/diffro"] == pytest.approx(
        float(diffro.gradient().norm()), rel=1e-5
    )


# --- bad input


def test_ranks_that_share_layers_are_refused() -> None:
    class Sharing(PhaseSingleDevice):
        lockstep = True

        def shard(self, parts: Any) -> None:
            raise AssertionError("refused before")

    with pytest.raises(ValueError, match=r"relaxation.unrolled is 3.*under Sharing"):
        run({"strategy": Sharing()})
