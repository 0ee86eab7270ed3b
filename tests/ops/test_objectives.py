from __future__ import annotations

import dataclasses
import math

import jsonargparse
import pytest
import torch
from torch import Tensor

from lightning_audiorl.ops import (
    CISPO,
    DAPO,
    GRPO,
    GSPO,
    MWER,
    DrGRPO,
    Objective,
    loss_divisor,
    reduce_terms,
    step_loss,
    unique_samples,
)
from tests.helpers import assert_close, assert_gradients_close
from tests.ops.cases import Case, make_case
from tests.ops.naive import MAX_LENGTH, OBJECTIVES, naive_loss, objective_id

ALL = pytest.mark.parametrize("objective", OBJECTIVES, ids=objective_id)


def loss_of(
    objective: Objective, case: Case, old: Tensor | None, unique: Tensor | None = None
) -> Tensor:
    surrogate = objective.surrogate(
        case.log_probs, old, case.advantages, case.keep, case.used, unique
    )
    total = reduce_terms(surrogate.terms, case.keep, case.used, objective.reduction)
    return step_loss(total, loss_divisor(case.keep, case.used, objective.reduction, MAX_LENGTH))


def value_and_gradient(function, case: Case) -> tuple[Tensor, Tensor]:
    case = dataclasses.replace(case, log_probs=case.log_probs.clone().requires_grad_())
    loss = function(case)
    loss.backward()
    return loss.detach(), case.log_probs.grad


def single(log_probs: list[list[float]], advantages: list[float], **changes: Tensor) -> Case:
    """One group; every token kept."""
    new = torch.tensor([log_probs], dtype=torch.float64)
    keep, used = torch.ones_like(new, dtype=torch.bool), torch.ones(new.shape[:2], dtype=torch.bool)
    return dataclasses.replace(
        Case(new, new, new, torch.tensor([advantages]).double(), keep, used), **changes
    )


@ALL
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_naive_loop(objective, spread):
    case = make_case(spread)
    value, gradient = value_and_gradient(
        lambda c: loss_of(objective, c, c.old_log_probs.detach()), case
    )
    expected, expected_gradient = value_and_gradient(lambda c: naive_loss(objective, c), case)
    assert_close(value, expected, "float64")
    assert_gradients_close(gradient, expected_gradient, 1e-12)


@ALL
def test_nan_in_masked_places(objective):
    case = make_case()
    value, gradient = value_and_gradient(lambda c: loss_of(objective, c, c.old_log_probs), case)
    spoilt, spoilt_gradient = value_and_gradient(
        lambda c: loss_of(objective, c, c.old_log_probs), case.poisoned()
    )
    assert_close(spoilt, value, "exact")
    assert_close(spoilt_gradient, gradient, "exact")
    surrogate = objective.surrogate(
        *dataclasses.astuple(case.poisoned())[:2], *dataclasses.astuple(case)[3:]
    )
    assert surrogate.terms[~case.mask].eq(0).all()


@ALL
def test_on_policy_is_the_default(objective):
    """No old log-probs: the same as the policy's own, with the gradient of A log pi (MWER aside)."""
    case = make_case()
    absent = value_and_gradient(lambda c: loss_of(objective, c, None), case)
    given = value_and_gradient(lambda c: loss_of(objective, c, c.log_probs.detach()), case)
    assert_close(absent[0], given[0], "exact")
    assert_close(absent[1], given[1], "exact")
    if isinstance(objective, MWER):
        return
    policy_gradient = value_and_gradient(
        lambda c: step_loss(
            reduce_terms(
                c.advantages.unsqueeze(-1) * c.log_probs, c.keep, c.used, objective.reduction
            ),
            loss_divisor(c.keep, c.used, objective.reduction, MAX_LENGTH),
        ),
        case,
    )
    assert_gradients_close(absent[1], policy_gradient[1], 1e-12)
    surrogate = objective.surrogate(case.log_probs, None, case.advantages, case.keep, case.used)
    assert surrogate.num_clipped_low == surrogate.num_clipped_high == 0


@ALL
def test_gradcheck(objective):
    """CISPO stops the gradient of its weight, which finite differences would see: it is held at 1 here."""
    if isinstance(objective, CISPO):
        objective = CISPO(clip_low=0.0, clip_high=0.0)
    case = make_case()

    def loss(log_probs: Tensor) -> Tensor:
        return loss_of(
            objective, dataclasses.replace(case, log_probs=log_probs), case.old_log_probs
        )

    assert torch.autograd.gradcheck(loss, case.log_probs.requires_grad_())


@ALL
def test_nothing_used_still_carries_a_graph(objective):
    case = make_case()
    for empty in (
        dataclasses.replace(case, used=torch.zeros_like(case.used)),
        dataclasses.replace(case, keep=torch.zeros_like(case.keep)),
    ):
        value, gradient = value_and_gradient(
            lambda c: loss_of(objective, c, c.old_log_probs), empty.poisoned()
        )
        assert value == 0
        assert_close(gradient, torch.zeros_like(gradient), "exact")


def test_clip_worked_numbers():
    """Ratios 1.5, .5 with both signs of A, clip .2 / .28."""
    old = torch.zeros(1, 2, 2, dtype=torch.float64)
    case = single([[math.log(1.5), math.log(0.5)]] * 2, [1.0, -1.0])
    surrogate = DAPO().surrogate(case.log_probs, old, case.advantages, case.keep, case.used)
    assert_close(surrogate.terms, [[[1.28, 0.5], [-1.5, -0.8]]], "float64")
    assert (surrogate.num_clipped_low, surrogate.num_clipped_high) == (1, 1)
    cispo = CISPO(clip_low=0.2).surrogate(
        case.log_probs, old, case.advantages, case.keep, case.used
    )
    expected = [
        [[1.28 * math.log(1.5), 0.8 * math.log(0.5)], [-1.28 * math.log(1.5), -0.8 * math.log(0.5)]]
    ]
    assert_close(cispo.terms, expected, "float64")
    assert (cispo.num_clipped_low, cispo.num_clipped_high) == (2, 2)


def test_gspo_counts_the_tokens_of_clipped_samples():
    case = single([[1.0, 1.0, 5.0], [-1.0, -1.0, -1.0]], [1.0, -1.0])
    case = dataclasses.replace(case, keep=torch.tensor([[[True, True, False], [True, True, True]]]))
    surrogate = GSPO().surrogate(
        case.log_probs, torch.zeros(1, 2, 3).double(), case.advantages, case.keep, case.used
    )
    assert (surrogate.num_clipped_low, surrogate.num_clipped_high) == (3, 2)


def test_gspo_gradient_is_the_papers():
    """arXiv 2507.18071, eq. 10: s_i A_i times the mean gradient of the sample's log-probs, when not clipped."""
    case = make_case()
    objective = GSPO(clip_low=0.9, clip_high=9.0)
    _, gradient = value_and_gradient(lambda c: loss_of(objective, c, c.old_log_probs), case)
    expected = torch.zeros_like(gradient)
    for b, g in case.used.nonzero().tolist():
        places = case.keep[b, g]
        ratio = (case.log_probs[b, g] - case.old_log_probs[b, g])[places].mean().exp()
        expected[b, g, places] = -ratio * case.advantages[b, g] / places.sum() / case.used.sum()
    assert_gradients_close(gradient, expected, 1e-12)


def test_mwer_worked_numbers():
    """Sequence probabilities .2 and .6 -> shares 1/4, 3/4; advantages +1, -1 -> the loss is +.5."""
    case = single([[math.log(0.4), math.log(0.5)], [math.log(0.6), 0.0]], [1.0, -1.0])
    assert_close(loss_of(MWER(), case, None), 0.5, "float64")


def test_mwer_counts_duplicates_once():
    log_probs = [[-1.0, -0.5], [-1.0, -0.5], [-0.3, -0.2]]
    case = single(log_probs, [1.0, 1.0, -1.0])
    distinct = single(log_probs[1:], [1.0, -1.0])
    unique = torch.tensor([[True, False, True]])
    assert_close(loss_of(MWER(), case, None, unique), loss_of(MWER(), distinct, None), "float64")
    assert abs(loss_of(MWER(), case, None) - loss_of(MWER(), distinct, None)) > 0.1


def test_mwer_gives_an_empty_completion_no_share():
    log_probs = [[-0.0, -0.0], [-1.0, -0.5], [-0.3, -0.2]]
    keep = torch.tensor([[[False, False], [True, True], [True, True]]])
    case = single(log_probs, [9.0, 1.0, -1.0], keep=keep)
    assert_close(
        loss_of(MWER(), case, None),
        loss_of(MWER(), single(log_probs[1:], [1.0, -1.0]), None),
        "float64",
    )


def test_mwer_baseline_does_not_move_the_gradient():
    case = make_case()
    shifted = dataclasses.replace(case, advantages=case.advantages + 3)
    one = value_and_gradient(lambda c: loss_of(MWER(), c, None), case)[1]
    other = value_and_gradient(lambda c: loss_of(MWER(), c, None), shifted)[1]
    assert_gradients_close(other, one, 1e-12)


def test_mwer_very_unlikely_samples_do_not_overflow():
    case = single([[-4e3, -1.0], [-5e3, -1.0]], [1.0, -1.0])
    value, gradient = value_and_gradient(lambda c: loss_of(MWER(), c, None), case)
    assert_close(value, -1.0, "float64")
    assert gradient.isfinite().all()


def test_unique_samples():
    tokens = torch.tensor([[[1, 2, 0], [1, 2, 9], [1, 2, 3], [1, 2, 0]]])
    keep = torch.tensor([[[True, True, False], [True, True, False], [True] * 3, [True] * 3]])
    assert unique_samples(tokens, keep).tolist() == [[True, False, True, True]]
    used = torch.tensor([[False, True, True, False]])
    assert unique_samples(tokens, keep, used).tolist() == [[False, True, True, False]]


def test_only_mwer_needs_to_know_which_samples_repeat():
    assert [type(objective) for objective in OBJECTIVES if objective.needs_unique] == [MWER]


def test_papers_defaults():
    assert (GRPO().reduction, GRPO().advantage, GRPO().drop_zero_variance) == (
        "sample_mean",
        "normalised",
        False,
    )
    assert (DrGRPO().reduction, DrGRPO().advantage) == ("fixed_length", "centred")
    assert (DAPO().clip_low, DAPO().clip_high) == (0.2, 0.28)
    assert (DAPO().reduction, DAPO().drop_zero_variance) == ("token_mean", True)
    assert (GSPO().clip_low, GSPO().clip_high, GSPO().reduction) == (3e-4, 4e-4, "sample_mean")
    assert (CISPO().reduction, MWER().reduction, MWER().advantage) == (
        "token_mean",
        "group_mean",
        "centred",
    )


class TakesAnObjective:
    def __init__(self, objective: Objective | None = None) -> None:
        self.objective = objective


@ALL
def test_yaml_class_path(objective):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TakesAnObjective, "algorithm")
    name = f"lightning_audiorl.ops.{type(objective).__name__}"
    built = parser.instantiate(
        parser.parse_object({"algorithm": {"objective": {"class_path": name}}})
    )
    assert built.algorithm.objective == type(objective)()
    spelt = {"class_path": name, "init_args": {"clip_hi": 1}}
    with pytest.raises(jsonargparse.ArgumentError, match="clip_hi"):
        parser.parse_object({"algorithm": {"objective": spelt}})


def test_bad_input():
    case = make_case()
    with pytest.raises(
        ValueError, match=r"got \[3, 4, 5\], \[3, 4, 5\], \[3, 4, 5\], \[12\], \[3, 4\]"
    ):
        GRPO().surrogate(case.log_probs, None, case.advantages.flatten(), case.keep, case.used)
    with pytest.raises(ValueError, match="group_mean"):
        MWER(reduction="token_mean")
