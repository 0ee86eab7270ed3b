from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_audiorl import ops
from lightning_audiorl.ops import (
    Schedule,
    TauSchedule,
    code_logits,
    gumbel_noise,
    keyed_exponentials,
    posterior_noise,
    relax,
    soft_embedding,
)
from lightning_audiorl.ops.relax import RelaxForm
from tests.helpers import assert_close, assert_gradients_close

INF = float("inf")
FORMS: tuple[RelaxForm, ...] = ("soft", "straight_through")


def make_logits(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def draws(num_draws: int, num: int, classes: int, name: str = "test") -> Tensor:
    return keyed_exponentials([(name, i) for i in range(num)], num_draws, classes)


def numeric_gradient(function, x: Tensor, step: float = 1e-6) -> Tensor:
    flat = torch.zeros(x.numel(), dtype=x.dtype)
    for i in range(x.numel()):
        moved = torch.zeros(x.numel(), dtype=x.dtype)
        moved[i] = step
        moved = moved.view_as(x)
        flat[i] = (function(x + moved) - function(x - moved)) / (2 * step)
    return flat.view_as(x)


# --- logits over codes


def test_classes_are_codes_and_the_end():
    """Codes in their own order, whatever token they are; the last class has the mass of all stop tokens."""
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]])
    classes = code_logits(logits, torch.tensor([3, 1]), [0, 4])
    assert_close(classes, [[0.4, 0.2, math.log(math.exp(0.1) + math.exp(0.5))]])
    assert_close(
        code_logits(logits, torch.tensor([3, 1]), [0, 4], with_stop=False), [[0.4, 0.2, -INF]]
    )


def test_impossible_tokens_leave_no_nan():
    logits = torch.tensor([[0.1, -INF, 0.3, -INF], [0.1, 0.2, 0.3, 0.4]], requires_grad=True)
    classes = code_logits(logits, torch.tensor([0, 1]), [3])
    weights = relax(classes, 0.5, gumbel_noise(draws(2, 2, 3)), "soft")
    assert weights[0, 1] == weights[0, 2] == 0
    (weights * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[:, 2] == 0).all()  # no code and no stop: it is left out
    assert (logits.grad[0, [1, 3]] == 0).all()


def test_full_kl_of_forbidden_tokens_has_no_nan():
    logits = torch.tensor([[0.5, -INF, 1.0]], requires_grad=True)
    kl = ops.full_vocabulary_kl(logits, torch.tensor([[0.0, -INF, 2.0]]))
    kl.sum().backward()
    assert float(kl.detach()) > 0
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


# --- noise


def test_draws_depend_on_their_key_alone():
    three, one = draws(3, 4, 5), draws(1, 4, 5)
    assert_close(three[:1], one, "exact")
    assert_close(keyed_exponentials([("test", 2)], 3, 5)[:, 0], three[:, 2], "exact")
    assert (draws(1, 4, 5, "other") != one).all()


def test_fresh_noise_draws_from_the_softmax():
    logits = make_logits(1, 4)
    noise = gumbel_noise(draws(20000, 1, 4))
    share = torch.bincount((logits + noise).argmax(-1).flatten(), minlength=4) / 20000
    assert (share - logits.softmax(-1)[0]).abs().max() < 0.015


def test_posterior_noise_gives_the_own_sample():
    """Whatever was drawn, the least likely class too; and never by a tie that rounding breaks."""
    logits = make_logits(50, 7).float()
    logits[:, 3] = -INF
    logits[:, 5] -= 15
    for own in (0, 2, 5, 6):
        noise = posterior_noise(logits, torch.full((50,), own), draws(8, 50, 7))
        top, second = (logits + noise).topk(2, dim=-1).values.unbind(-1)
        assert ((logits + noise).argmax(-1) == own).all()
        assert (top > second).all()
        assert noise.isfinite().all()


def test_posterior_noise_over_own_samples_is_gumbel_noise():
    """Averaged over draws of the own class it is fresh noise again: mean 0.577, variance 1.645."""
    logits = make_logits(1, 4).expand(20000, 4)
    own = torch.multinomial(
        logits[0].softmax(-1), 20000, True, generator=torch.Generator().manual_seed(3)
    )
    noise = posterior_noise(logits, own, draws(1, 20000, 4))[0]
    assert (noise.mean(0) - 0.5772).abs().max() < 0.04
    assert (noise.var(0) - math.pi**2 / 6).abs().max() < 0.12


def test_an_impossible_own_token_is_refused():
    with pytest.raises(ValueError, match="an own token is impossible under its logits"):
        posterior_noise(torch.tensor([[0.0, -INF]]), torch.tensor([1]), draws(1, 1, 2))


# --- relaxation


def test_soft_gradient_is_the_numerical_one():
    logits, noise = make_logits(3, 5), gumbel_noise(draws(2, 3, 5)).double()
    table = make_logits(5, 4, seed=1)

    def score(x: Tensor) -> Tensor:
        return soft_embedding(relax(x, 0.7, noise, "soft"), table).tanh().sum()

    x = logits.clone().requires_grad_(True)
    score(x).backward()
    assert x.grad is not None
    assert_gradients_close(x.grad, numeric_gradient(score, logits), 1e-7)


@pytest.mark.parametrize("tau", [0.05, 0.5, 1.0, 5.0])
def test_straight_through_is_hard_forward_and_soft_backward(tau: float):
    logits = make_logits(6, 5)
    own = logits.softmax(-1).multinomial(1, generator=torch.Generator().manual_seed(0)).squeeze(-1)
    noise = posterior_noise(logits, own, draws(3, 6, 5))
    table = make_logits(5, 4, seed=1)
    gradients = []
    for form in FORMS:
        x = logits.clone().requires_grad_(True)
        embedded = soft_embedding(relax(x, tau, noise, form), table)
        if form == "straight_through":
            assert_close(embedded, table[own], "exact")
        (embedded * torch.arange(4.0)).sum().backward()
        assert x.grad is not None
        gradients.append(x.grad)
    assert_gradients_close(gradients[1], gradients[0], 1e-12)


def test_soft_goes_to_hard_as_tau_falls():
    logits = make_logits(20, 5)
    own = logits.argmax(-1)
    noise = posterior_noise(logits, own, draws(1, 20, 5))
    hard = torch.nn.functional.one_hot(own, 5)
    errors = [
        float((relax(logits, tau, noise, "soft") - hard).abs().mean())
        for tau in (2.0, 0.5, 0.1, 0.01, 1e-5)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6


def test_draws_are_averaged():
    logits, noise = make_logits(2, 4), gumbel_noise(draws(3, 2, 4)).double()
    each = torch.stack([relax(logits, 0.7, noise[k : k + 1], "soft") for k in range(3)])
    assert_close(relax(logits, 0.7, noise, "soft"), each.mean(0), "float64")
    assert_close(relax(logits, 0.7, noise, "straight_through").sum(-1), torch.ones(2), "float64")


@pytest.mark.parametrize(("tau", "form"), [(0.0, "soft"), (-1.0, "soft"), (1.0, "hard")])
def test_bad_relaxation(tau: float, form: RelaxForm):
    with pytest.raises(ValueError, match="want tau > 0 and a form of"):
        relax(make_logits(1, 3), tau, torch.zeros(1, 1, 3), form)


# --- schedules


def test_schedules():
    assert [Schedule(1.0, 0.5, "linear", 100).at(step, 7) for step in (0, 50, 100, 500)] == [
        1.0,
        0.75,
        0.5,
        0.5,
    ]
    assert [Schedule(1.0, 0.25, "exponential").at(step, 10) for step in (0, 5, 10)] == [
        1.0,
        0.5,
        0.25,
    ]
    assert Schedule(0.3).at(99, 100) == 0.3
    assert TauSchedule().at(5, 10) == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TauSchedule(0.0), "tau must be above 0"),
        (lambda: TauSchedule(1.0, 0.0, "linear"), "tau must be above 0"),
        (lambda: TauSchedule(-1.0), "finite values >= 0"),
        (lambda: Schedule(1.0, 0.5), "a constant has no end"),
        (lambda: Schedule(1.0, kind="linear"), "another kind has one"),
        (lambda: Schedule(1.0, 0.0, "exponential"), "never reaches 0"),
        (lambda: Schedule(math.nan), "finite values"),
        (lambda: Schedule(1.0, 2.0, "cosine"), "kind is one of"),  # type: ignore[arg-type]
    ],
)
def test_bad_schedules(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
