from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl import ops
from lightning_audiorl.algorithms import (
    LengthRange,
    Optim,
    PositiveAdvantage,
    Relaxation,
    StopEmitted,
)
from lightning_audiorl.losses import ReferenceStates
from lightning_audiorl.ops import TauSchedule
from lightning_audiorl.rewards import DifferentiableMix, RewardMix
from lightning_audiorl.strategies import PhaseSingleDevice
from lightning_audiorl.types import Decoding
from tests.algorithms.speaking import (
    Codes,
    assert_numerical_gradient,
    gradient,
    make_batch,
    make_double,
    make_double_policy,
    make_mix,
    make_module,
    make_network,
    relaxed_loss,
    sampled,
)
from tests.algorithms.tiny import Recorder, fit, make_policy, trainable
from tests.helpers import assert_close, assert_gradients_close
from tests.models.families import make


def whole_loss(
    module: Any, beta: float = 0.0, tau: float = 1.0, step: Any = None
) -> tuple[Tensor, dict[str, Tensor]]:
    context, rollout, plain = sampled(module)
    return relaxed_loss(module, step or plain, context, rollout, beta, tau)


def hard_score(module: Any) -> Tensor:
    """The mix's score of the sampled codes themselves, summed; the end of speech is read too."""
    _, rollout, _ = sampled(module)
    own = module.policy.token_to_code[rollout.tokens].flatten(0, 1)
    classes = torch.where(own < 0, 16, own)
    mix = module.losses[0].differentiable
    rows = [row for row in make_batch().rows for _ in range(module.sampler.group_size)]
    return mix.score(mix.network.embed(classes), rollout.lengths.flatten(), rows)[0].sum()


# --- the gradient


def test_soft_gradient_is_the_numerical_one() -> None:
    """Through head, relaxation at fixed noise, embedding and Token2Text, in float64, along random directions."""
    module = make_double(relaxation=Relaxation(form="soft", noise="fresh", num_draws=2))
    assert_numerical_gradient(module, lambda: whole_loss(module, tau=0.7)[0])


@pytest.mark.parametrize("tau", [0.1, 1.0, 3.0])
def test_straight_through_scores_the_hard_codes_at_every_tau(tau: float) -> None:
    module = make_module(relaxation=Relaxation(num_draws=2))
    loss, figures = whole_loss(module, tau=tau)
    assert_close(-loss.detach(), hard_score(module), "policy")
    assert_close(figures["reward/diffro/total"], hard_score(module), "policy")
    assert gradient(module, loss).norm() > 0


def test_soft_score_goes_to_the_hard_one_as_tau_falls() -> None:
    module = make_module(relaxation=Relaxation(form="soft"))
    errors = [
        abs(float(whole_loss(module, tau=tau)[0].detach() + hard_score(module)))
        for tau in (2.0, 0.3, 1e-5)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1
    assert errors[-1] < 1e-3


def test_without_kl_the_gradient_comes_through_the_relaxed_codes_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = make_module()
    assert gradient(module, whole_loss(module)[0]).norm() > 0
    relax = ops.relax
    monkeypatch.setattr(ops, "relax", lambda *args: relax(*args).detach())
    assert not whole_loss(module)[0].requires_grad


def test_dropped_samples_have_no_gradient() -> None:
    """What a dropped sample says does not matter, and the others' gradients add up."""
    module = make_module()
    context, rollout, step = sampled(module)
    used = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 1]]).bool()
    some = replace(step, used=used)
    kept = gradient(module, relaxed_loss(module, some, context, rollout, 0.0, 1.0)[0])
    codes = torch.where(used[..., None], rollout.tokens, module.policy.code_to_token[3])
    other = gradient(
        module, relaxed_loss(module, some, context, replace(rollout, tokens=codes), 0.0, 1.0)[0]
    )
    assert_gradients_close(other, kept)
    rest = gradient(
        module, relaxed_loss(module, replace(step, used=~used), context, rollout, 0.0, 1.0)[0]
    )
    assert_gradients_close(
        kept + rest, gradient(module, relaxed_loss(module, step, context, rollout, 0.0, 1.0)[0])
    )
    none = relaxed_loss(module, replace(step, used=used & False), context, rollout, 0.1, 1.0)[0]
    assert gradient(module, none).norm() == 0


def test_the_stop_gets_a_gradient_unless_excluded() -> None:
    """Of the head's row for the stop token; an excluded one is not read either."""
    for stop, moves in (("relaxed", True), ("excluded", False)):
        module = make_module(relaxation=Relaxation(stop=stop))  # type: ignore[arg-type]
        logits: list[Tensor] = []
        head = module.policy.head

        def spy(hidden: Tensor, head: Any = head, logits: list[Tensor] = logits) -> Tensor:
            out = head(hidden)
            if out.requires_grad:
                out.retain_grad()
                logits.append(out)
            return out

        module.policy.head = spy
        whole_loss(module)[0].backward()
        of_stop = logits[0].grad[:, module.policy.stop_ids]  # type: ignore[index]
        assert bool(of_stop.abs().sum() > 0) == moves


# --- KL


def test_kl_is_that_of_the_whole_vocabulary() -> None:
    """Mean over a sample's tokens; its gradient reaches the policy directly, not the reference.

    In float64: what the divergence adds to a loss is less than a hundredth of that loss.
    """
    module = make_double()
    other = make_double_policy()
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(0.9)
    context, rollout, step = sampled(module)
    reference = ReferenceStates(
        other.hidden(context, rollout).detach().unflatten(0, (3, 4)), other.output
    )
    step = replace(step, reference=reference)
    plain = relaxed_loss(module, step, context, rollout, 0.0, 1.0)[0]
    with_kl, figures = relaxed_loss(module, step, context, rollout, 0.3, 1.0)
    logits, of_reference = (
        p.head(p.hidden(context, rollout)) / 0.8 for p in (module.policy, other)
    )
    allowed = module.policy.allowed
    log_p, log_q = logits[..., allowed].log_softmax(-1), of_reference[..., allowed].log_softmax(-1)
    keep = rollout.keep.flatten(0, 1)
    kl = torch.where(keep, (log_p.exp() * (log_p - log_q)).sum(-1), 0.0)
    naive = 0.3 * (kl.sum(-1) / keep.sum(-1)).sum()
    assert_close((with_kl - plain).detach(), naive.detach(), "float64")
    assert_close(figures["kl"], kl.sum().detach(), "float64")
    assert_gradients_close(gradient(module, with_kl - plain), gradient(module, naive))
    entropy = torch.where(keep, -(log_p.exp() * log_p).sum(-1), 0.0).sum()
    assert_close(figures["entropy"], entropy.detach(), "float64")


@pytest.mark.parametrize("mode", ["all", "lora"])
def test_kl_is_zero_at_the_start_and_holds_the_policy_back(mode: str) -> None:
    recorders = {}
    for beta in (0.1, 100.0):
        module = make_module(policy=make("speech_lm", mode), num_steps=3, beta=beta, group_size=2)
        recorders[beta] = fit(module, [make_batch("ab")] * 3)
    assert recorders[0.1].metrics[0]["kl"] == 0
    assert recorders[0.1].metrics[2]["kl"] > recorders[100.0].metrics[2]["kl"] > 0


# --- the step, cut up in any way


def settings_of(how: str) -> dict[str, Any]:
    return {
        "micro": {"micro_batch_size": 1},
        "tokens": {"max_tokens": 40},
        "chunks": {"chunk_size": 3},
        "rollout": {"rollout_batch_size": 1},
    }[how]


def run(num_steps: int = 2, trainer: dict[str, Any] | None = None, **settings: Any) -> Recorder:
    policy = make("speech_lm")
    settings = {"beta": 0.2, "relaxation": Relaxation(num_draws=2)} | settings
    module = make_module(policy=policy, num_steps=num_steps, **settings)
    return fit(module, [make_batch(), make_batch("def")][:num_steps], **(trainer or {}))


@pytest.fixture(scope="module")
def whole() -> Recorder:
    return run()


@pytest.mark.parametrize("how", ["micro", "tokens", "chunks", "rollout"])
def test_cutting_changes_nothing(whole: Recorder, how: str) -> None:
    cut_up = run(**settings_of(how))
    for step in range(2):
        assert_gradients_close(cut_up.gradient(step), whole.gradient(step), 1e-4)
        for name in ("kl", "reward/diffro/total", "reward/diffro/ctc", "entropy", "loss"):
            assert cut_up.metrics[step][name] == pytest.approx(
                whole.metrics[step][name], rel=1e-5, abs=1e-5
            )


@pytest.mark.parametrize("placement", ["resident", "offload"])
def test_phases_change_no_number(whole: Recorder, placement: str) -> None:
    phased = run(trainer={"strategy": PhaseSingleDevice(placement=placement)})  # type: ignore[arg-type]
    assert_close(phased.gradient(1), whole.gradient(1), "exact")
    assert phased.metrics[1]["kl"] == whole.metrics[1]["kl"]


def test_a_step_climbs_the_reward() -> None:
    """Ten steps on one batch raise the likelihood that Token2Text gives its texts."""
    module = make_module(num_steps=10, beta=0.0, optim=Optim(lr=2e-2), group_size=8)
    recorder = fit(module, [make_batch("ab")] * 10)
    rewards = [metrics["reward/diffro/total"] for metrics in recorder.metrics]
    assert "kl" not in recorder.metrics[0]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.3


def test_without_rewards_no_waveform_is_made() -> None:
    policy = make("speech_lm")
    codec: Any = policy.codec
    recorder = fit(make_module(policy=policy), [make_batch()])
    assert codec.conditions == []
    assert not any(name.startswith(("reward/mean", "invalid")) for name in recorder.metrics[0])
    module = make_module(policy=policy, rewards=RewardMix([Codes()]))
    recorder = fit(module, [make_batch()])
    assert len(codec.conditions) > 0
    assert {"reward/mean", "reward/codes/mean", "stop_rate", "tau", "length/mean"} <= set(
        recorder.metrics[0]
    )
    assert module.last_step is not None


def test_rewards_alone_teach_nothing() -> None:
    """A reward of the waveform is logged; the weights are those of a run without it."""
    one, other = run(1), run(1, rewards=RewardMix([Codes()]))
    assert_close(one.gradient(), other.gradient(), "exact")


@pytest.mark.filterwarnings("error:Detected call of")
def test_drops_are_counted_and_an_empty_step_is_well_defined() -> None:
    filters = [StopEmitted(), LengthRange(high=5)]
    recorder = fit(make_module(diffro_filters=filters), [make_batch()])
    figures = recorder.metrics[0]
    dropped = [
        figures[f"dropped/diffro/{name}"] for name in ("no_speech", "StopEmitted", "LengthRange")
    ]
    assert sum(dropped) + 12 * figures["used_share"] == 12
    assert dropped[1] > 0
    policy = make("speech_lm")
    before = trainable(policy)
    recorder = fit(
        make_module(policy=policy, diffro_filters=[LengthRange(low=999)]), [make_batch()]
    )
    assert recorder.metrics[0]["skipped_updates"] == 1
    assert recorder.metrics[0]["used_share"] == 0
    assert all((before[name] == value).all() for name, value in trainable(policy).items())


def test_tau_follows_its_schedule() -> None:
    recorder = run(relaxation=Relaxation(TauSchedule(2.0, 1.0, "linear")))
    assert [metrics["tau"] for metrics in recorder.metrics] == [2.0, 1.5]


# --- bad input


def test_another_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="Token2Text reads 12 codes, the policy speaks 16"):
        fit(make_module(differentiable=make_mix(num_codes=12)), [make_batch()])
    with pytest.raises(ValueError, match="another codec of 16 codes"):
        fit(make_module(differentiable=make_mix(codec_hash="somebody else's")), [make_batch()])


def test_a_text_that_is_too_long_is_refused_before_anything_is_sampled() -> None:
    module = make_module(differentiable=DifferentiableMix(make_network(max_characters=8)))
    with pytest.raises(
        ValueError, match="row 'c': its text has 13 characters, Token2Text knows texts of up to 8"
    ):
        fit(module, [make_batch()])
    assert module.policy.num_encoded == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoding": Decoding(top_k=5)}, "top_k to 0 and top_p to 1"),
        ({"decoding": Decoding(top_p=0.9)}, "top_k to 0 and top_p to 1"),
        ({"diffro_filters": [PositiveAdvantage()]}, "PositiveAdvantage looks at rewards"),
        ({"beta": -1.0}, "beta: want a finite number at least 0"),
        ({"policy": make_policy()}, "speaks in the codes of a codec"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_module(**settings)


def test_bad_relaxation() -> None:
    for bad in (
        {"form": "hard"},
        {"noise": "none"},
        {"stop": "kept"},
        {"num_draws": 0},
        {"unrolled": -1},
    ):
        with pytest.raises(
            ValueError, match=r"Relaxation(: form is soft|\.(num_draws|unrolled): want)"
        ):
            Relaxation(**bad)  # type: ignore[arg-type]


# --- memory


@pytest.mark.parametrize(("chunk_size", "held"), [(3, False), (0, True)])
def test_a_micro_batch_holds_no_logits(chunk_size: int, held: bool) -> None:
    """Neither is vocabulary times positions kept for the backward pass, nor codes; in one chunk both are."""
    module = make_module(relaxation=Relaxation(num_draws=2), chunk_size=chunk_size)
    wide = len(module.policy.allowed), 16 + 1
    saved: list[torch.Size] = []

    def note(x: Tensor) -> Tensor:
        saved.append(x.shape)
        return x

    context, rollout, step = sampled(module)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        loss, _ = relaxed_loss(module, step, context, rollout, 0.0, 1.0)
    assert loss.requires_grad
    assert any(len(shape) > 1 and shape[-1] in wide for shape in saved) == held
