from __future__ import annotations

import dataclasses
from typing import get_args

import pytest
import torch
from torch import Tensor

from lightning_audiorl.ops import (
    Objective,
    Reduction,
    kl_estimate,
    kl_penalised,
    loss_divisor,
    reduce_terms,
    step_loss,
    unique_samples,
)
from tests.helpers import assert_close, assert_gradients_close
from tests.ops.cases import Case, make_case
from tests.ops.naive import MAX_LENGTH, OBJECTIVES, naive_reduce, objective_id

EACH = pytest.mark.parametrize("reduction", get_args(Reduction))
BETA = 0.1


def test_worked_numbers():
    """Two groups of two; tokens 1 2 | 3 and 4 | (unused)."""
    nan = float("nan")
    terms = torch.tensor([[[1.0, 2.0], [3.0, nan]], [[4.0, nan], [nan, nan]]])
    keep = torch.tensor([[[True, True], [True, False]], [[True, False], [True, True]]])
    used = torch.tensor([[True, True], [True, False]])
    for reduction, total, divisor in (
        ("sample_mean", 1.5 + 3 + 4, 3),
        ("token_mean", 10, 4),
        ("fixed_length", 10, 3 * MAX_LENGTH),
        ("group_mean", (1.5 + 3) / 2 + 4, 2),
    ):
        assert_close(reduce_terms(terms, keep, used, reduction), float(total))
        assert loss_divisor(keep, used, reduction, MAX_LENGTH) == divisor
    assert_close(step_loss(torch.tensor(8.5), torch.tensor(3)), -8.5 / 3)


@EACH
def test_naive_loop(reduction):
    case = make_case()
    terms = case.log_probs
    groups = [
        {g: list(terms[b, g][case.keep[b, g]]) for g in range(4) if case.used[b, g]}
        for b in range(3)
    ]
    groups = [group for group in groups if group]
    total = reduce_terms(terms, case.keep, case.used, reduction)
    loss = step_loss(total, loss_divisor(case.keep, case.used, reduction, MAX_LENGTH))
    assert_close(loss, -naive_reduce(groups, reduction), "float64")


@EACH
def test_nan_and_graph(reduction):
    case = make_case()
    clean = reduce_terms(case.log_probs, case.keep, case.used, reduction)
    terms = case.poisoned().log_probs.requires_grad_()
    total = reduce_terms(terms, case.keep, case.used, reduction)
    total.backward()
    assert_close(total.detach(), clean, "exact")
    assert terms.grad[~case.mask].eq(0).all()
    assert terms.grad[case.mask].gt(0).all()

    terms.grad = None
    nothing = torch.zeros_like(case.used)
    empty = step_loss(
        reduce_terms(terms, case.keep, nothing, reduction),
        loss_divisor(case.keep, nothing, reduction, MAX_LENGTH),
    )
    empty.backward()
    assert empty == 0
    assert terms.grad.eq(0).all()


@EACH
def test_gradcheck(reduction):
    case = make_case()
    assert torch.autograd.gradcheck(
        lambda terms: reduce_terms(terms, case.keep, case.used, reduction),
        case.log_probs.requires_grad_(),
    )


def total_of(objective: Objective, case: Case, tokens: Tensor) -> Tensor:
    unique = unique_samples(tokens, case.keep, case.used)
    surrogate = objective.surrogate(
        case.log_probs, case.old_log_probs, case.advantages, case.keep, case.used, unique
    )
    kl = kl_estimate(case.log_probs, case.ref_log_probs, "k3", case.mask)
    return reduce_terms(
        kl_penalised(surrogate.terms, kl, BETA), case.keep, case.used, objective.reduction
    )


@pytest.mark.parametrize("objective", OBJECTIVES, ids=objective_id)
@pytest.mark.parametrize("cut", [[1, 1, 1], [2, 1], [1, 2]], ids=str)
def test_micro_batches_change_nothing(objective, cut):
    """Whole groups, trimmed to their longest completion, each going backward by itself; the last has nothing used."""
    case = make_case().poisoned()
    tokens = torch.randint(2, case.keep.shape, generator=torch.Generator().manual_seed(0))
    whole = dataclasses.replace(case, log_probs=case.log_probs.clone().requires_grad_())
    divisor = loss_divisor(case.keep, case.used, objective.reduction, MAX_LENGTH)
    loss = step_loss(total_of(objective, whole, tokens), divisor)
    loss.backward()

    leaf = case.log_probs.clone().requires_grad_()
    parts = [[x.clone() for x in tensor.split(cut)] for tensor in dataclasses.astuple(case)]
    micro_batches = [Case(*fields) for fields in zip(*parts, strict=True)]
    counts = [loss_divisor(m.keep, m.used, objective.reduction, MAX_LENGTH) for m in micro_batches]
    assert sum(counts) == divisor
    losses = []
    for micro, log_probs, words in zip(
        micro_batches, leaf.split(cut), tokens.split(cut), strict=True
    ):
        longest = int(micro.keep.sum(-1).max())
        per_token = [
            x[..., :longest] for x in (log_probs, micro.old_log_probs, micro.ref_log_probs)
        ]
        trimmed = Case(*per_token, micro.advantages, micro.keep[..., :longest], micro.used)
        losses.append(step_loss(total_of(objective, trimmed, words[..., :longest]), sum(counts)))
        losses[-1].backward()
    assert_close(sum(losses).detach(), loss.detach(), "float64")
    assert_gradients_close(leaf.grad, whole.log_probs.grad, 1e-12)


def test_kl_penalty_is_zero_at_the_start_and_reduces_alike():
    case = make_case(spread=0.0)
    kl = kl_estimate(case.log_probs, case.ref_log_probs, "k3", case.mask)
    assert_close(kl, torch.zeros_like(kl), "exact")
    terms, kl = torch.ones(1, 1, 2), torch.tensor([[[1.0, 3.0]]])
    assert_close(kl_penalised(terms, kl, 0.5), [[[0.5, -0.5]]], "exact")
    assert kl_penalised(terms, kl, 0.0) is terms


def test_bad_input():
    case = make_case()
    with pytest.raises(ValueError, match="reduction must be one of"):
        reduce_terms(case.log_probs, case.keep, case.used, "mean")
    with pytest.raises(ValueError, match="needs max_length"):
        loss_divisor(case.keep, case.used, "fixed_length")
    with pytest.raises(ValueError, match=r"got \[3, 4, 5\], \[12\]"):
        loss_divisor(case.keep, case.used.flatten(), "token_mean")
    with pytest.raises(ValueError, match="differ"):
        reduce_terms(case.log_probs[..., :1], case.keep, case.used, "token_mean")
    with pytest.raises(ValueError, match="differ"):
        kl_penalised(case.log_probs, case.log_probs[..., :1], 0.1)
