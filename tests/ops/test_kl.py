from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lightning_audiorl.ops import chunked_full_kl, full_vocabulary_kl, kl_estimate, lengths_to_keep
from tests.helpers import assert_close, assert_gradients_close

INF, NAN = float("inf"), float("nan")
KINDS = ["k1", "k2", "k3"]


def make_logits(seed: int) -> Tensor:
    return torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_worked_numbers():
    log_probs, ref = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    assert_close(kl_estimate(log_probs, ref, "k1"), [0.5, -1])
    assert_close(kl_estimate(log_probs, ref, "k2"), [0.125, 0.5])
    assert_close(kl_estimate(log_probs, ref, "k3"), [math.exp(-0.5) - 0.5, math.e - 2])
    policy, reference = torch.tensor([0.5, 0.5, 0]).log(), torch.tensor([0.25, 0.75, 0]).log()
    assert_close(full_vocabulary_kl(policy, reference), 0.5 * math.log(2) + 0.5 * math.log(2 / 3))


def expectation(kind: str, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the policy's own draws of the estimate, and of its gradient as a loss on the sampled token."""
    share = log_p.exp().detach()
    estimate = kl_estimate(log_p, log_q, kind)
    return (share * estimate).sum().detach(), torch.autograd.grad((share * estimate).sum(), log_p)[
        0
    ]


def test_estimators_mean_what_their_docstring_says():
    """In expectation k1 and k3 are KL(pi||ref); k2 has its gradient, k3 that of KL(ref||pi), k1 none."""
    torch.manual_seed(0)
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    log_q = torch.randn(5, dtype=torch.float64).log_softmax(-1)
    log_p = logits.log_softmax(-1)
    forward = (log_p.exp() * (log_p - log_q)).sum()
    reverse = (log_q.exp() * (log_q - log_p)).sum()
    assert_close(expectation("k1", log_p, log_q)[0], forward.detach(), "float64")
    assert_close(expectation("k3", log_p, log_q)[0], forward.detach(), "float64")

    def grad(value: Tensor) -> Tensor:
        return torch.autograd.grad(value, logits, retain_graph=True)[0]

    def loss_gradient(kind: str) -> Tensor:
        through = torch.autograd.grad(
            (log_p.exp().detach() * kl_estimate(log_p, log_q, kind)).sum(),
            logits,
            retain_graph=True,
        )
        return through[0]

    assert_close(loss_gradient("k2"), grad(forward), "float64")
    assert_close(loss_gradient("k3"), grad(reverse), "float64")
    assert_close(loss_gradient("k1"), torch.zeros(5), "float64")


@pytest.mark.parametrize("kind", KINDS)
def test_equal_is_exactly_zero_and_forbidden_in_both_is_none(kind):
    log_probs = torch.tensor([-0.3, -7.1, -INF], requires_grad=True)
    kl = kl_estimate(log_probs, log_probs.detach().clone(), kind)
    assert_close(kl.detach(), torch.zeros(3), "exact")
    kl.sum().backward()
    assert_close(log_probs.grad, [1, 1, 0] if kind == "k1" else [0, 0, 0], "exact")


@pytest.mark.parametrize("kind", KINDS)
def test_nan_in_masked_places(kind):
    keep = torch.tensor([True, False, False])
    log_probs = torch.tensor([-1.0, NAN, -1.0], requires_grad=True)
    kl = kl_estimate(log_probs, torch.tensor([-2.0, -1.0, NAN]), kind, keep)
    kl.sum().backward()
    assert kl[0] != 0
    assert kl[1:].eq(0).all()
    assert log_probs.grad.isfinite().all()
    assert log_probs.grad[1:].eq(0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck_of_the_estimators(kind):
    log_probs, ref = make_logits(0).requires_grad_(), make_logits(1)
    assert torch.autograd.gradcheck(lambda x: kl_estimate(x, ref, kind, ref > -1), log_probs)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_full_kl_naive_loop(temperature):
    logits, ref = make_logits(0), make_logits(1)
    logits[..., 2], ref[..., 2], logits[..., 4] = -INF, -INF, -INF
    kl = full_vocabulary_kl(logits, ref, temperature)
    for b in range(2):
        for t in range(3):
            p, q = (
                [math.exp(x / temperature) for x in row[b, t].tolist()] for row in (logits, ref)
            )
            p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
            expected = sum(x * math.log(x / y) for x, y in zip(p, q, strict=True) if x > 0)
            assert_close(kl[b, t], expected, "float64")


def test_full_kl_forbidden_tokens():
    logits = torch.tensor([0.1, 0.2, -INF, 0.4], requires_grad=True)
    kl = full_vocabulary_kl(logits, logits.detach().clone())
    kl.backward()
    assert kl.item() == 0, "exactly"
    assert logits.grad.isfinite().all()
    only_policy = full_vocabulary_kl(torch.tensor([0.0, -INF]), torch.tensor([0.0, 0.0]))
    assert_close(only_policy, math.log(2))
    only_reference = full_vocabulary_kl(torch.tensor([0.0, 0.0]), torch.tensor([0.0, -INF]))
    assert only_reference == INF


@pytest.mark.parametrize("own_head", [False, True])
@pytest.mark.parametrize("chunk_size", [0, 2])
def test_chunked_full_kl(chunk_size, own_head):
    torch.manual_seed(0)
    head, other = nn.Linear(4, 7, dtype=torch.float64), nn.Linear(4, 7, dtype=torch.float64)
    ref_head = other if own_head else None
    hidden, ref = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    keep = lengths_to_keep(torch.tensor([3, 1]), 3)
    whole = full_vocabulary_kl(head(hidden.requires_grad_()), (ref_head or head)(ref).detach(), 0.7)
    whole[keep].sum().backward()
    expected, expected_weight = hidden.grad, head.weight.grad
    head.zero_grad()
    spoilt = hidden.detach().masked_fill(~keep.unsqueeze(-1), NAN).requires_grad_()
    ref = ref.masked_fill(~keep.unsqueeze(-1), NAN).requires_grad_()
    kl = chunked_full_kl(spoilt, ref, head, keep, ref_head, 0.7, chunk_size)
    kl.sum().backward()
    assert_close(kl.detach(), whole.detach().masked_fill(~keep, 0), "float64")
    assert_gradients_close(spoilt.grad, expected, 1e-12)
    assert_gradients_close(head.weight.grad, expected_weight, 1e-12)
    assert ref.grad is None
    assert other.weight.grad is None
    with torch.no_grad():
        assert_close(
            chunked_full_kl(spoilt, ref, head, keep, ref_head, 0.7, chunk_size),
            kl.detach(),
            "exact",
        )


def test_chunked_full_kl_of_nothing():
    hidden = torch.ones(1, 2, 4, requires_grad=True)
    kl = chunked_full_kl(
        hidden, hidden.detach(), nn.Linear(4, 7), torch.zeros(1, 2, dtype=torch.bool), chunk_size=2
    )
    kl.sum().backward()
    assert_close(kl.detach(), torch.zeros(1, 2), "exact")
    assert_close(hidden.grad, torch.zeros(1, 2, 4), "exact")


def test_gradcheck_of_full_kl():
    ref = make_logits(1)
    assert torch.autograd.gradcheck(
        lambda x: full_vocabulary_kl(x, ref, 0.7), make_logits(0).requires_grad_()
    )


def test_bad_input():
    with pytest.raises(ValueError, match="kind must be one of"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "k4")
    with pytest.raises(ValueError, match="differ"):
        kl_estimate(torch.zeros(1), torch.zeros(2))
    with pytest.raises(ValueError, match=r"got \[1, 2, 3\], \[1, 2, 4\]"):
        chunked_full_kl(
            torch.zeros(1, 2, 3),
            torch.zeros(1, 2, 4),
            nn.Identity(),
            torch.ones(1, 2, dtype=torch.bool),
        )
