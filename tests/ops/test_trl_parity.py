"""The losses of ops against TRL's own `GRPOTrainer._compute_loss`, run on the same tensors."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from trl import GRPOTrainer

from lightning_audiorl.ops import (
    CISPO,
    DAPO,
    GRPO,
    GSPO,
    DrGRPO,
    Objective,
    kl_estimate,
    kl_penalised,
    loss_divisor,
    reduce_terms,
    step_loss,
    truncated_importance_weights,
)
from tests.helpers import assert_close, assert_gradients_close
from tests.ops.cases import Case, make_case
from tests.ops.naive import objective_id

MAX_LENGTH = 9
LOSS_TYPES = [
    (GRPO(), "grpo", "token"),
    (GRPO(clip_low=0.1, clip_high=0.4), "grpo", "token"),
    (DrGRPO(), "dr_grpo", "token"),
    (DAPO(), "dapo", "token"),
    (GSPO(clip_low=0.03, clip_high=0.04), "grpo", "sequence"),
    (CISPO(), "cispo", "token"),
]
EACH = pytest.mark.parametrize(("objective", "loss_type", "level"), LOSS_TYPES, ids=objective_id)


def everyone_used() -> Case:
    """TRL has no invalid samples."""
    case = make_case()
    return dataclasses.replace(case, used=torch.ones_like(case.used))


def trl_loss(
    objective: Objective,
    loss_type: str,
    level: str,
    case: Case,
    old: Tensor | None,
    beta: float,
    weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """TRL's method on a stand-in for the trainer that hands it our log-probs instead of a model's."""
    log_probs = case.log_probs.flatten(0, 1)
    num_rows = len(log_probs)
    metrics: dict[str, dict[str, list[float]]] = {"train": defaultdict(list)}
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (
            log_probs,
            torch.zeros_like(log_probs),
            None,
        ),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        accelerator=SimpleNamespace(
            num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x
        ),
        model=SimpleNamespace(training=True),
        loss_type=loss_type,
        importance_sampling_level=level,
        beta=beta,
        epsilon_low=objective.clip_low,
        epsilon_high=objective.clip_high + (1 if loss_type == "cispo" else 0),
        max_completion_length=MAX_LENGTH,
        current_gradient_accumulation_steps=1,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        aux_loss_enabled=False,
        use_vllm=weights is not None,
        vllm_importance_sampling_correction=True,
        _entropy_bonus_enabled=False,
        _metrics=metrics,
    )
    inputs = {
        "prompt_ids": torch.zeros(num_rows, 1, dtype=torch.long),
        "prompt_mask": torch.ones(num_rows, 1, dtype=torch.long),
        "completion_ids": torch.zeros(case.keep.flatten(0, 1).shape, dtype=torch.long),
        "completion_mask": case.keep.flatten(0, 1).long(),
        "advantages": case.advantages.flatten(),
        "ref_per_token_logps": case.ref_log_probs.flatten(0, 1),
        "num_items_in_batch": case.keep.sum(),
    }
    if old is not None:
        inputs["old_per_token_logps"] = old.flatten(0, 1)
    if weights is not None:
        inputs["importance_sampling_ratio"] = weights.flatten(0, 1)
    loss = GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    return loss, {name: values[0] for name, values in metrics["train"].items()}


def our_loss(
    objective: Objective, case: Case, old: Tensor | None, beta: float, weights: Tensor | None = None
) -> tuple[Tensor, dict[str, float]]:
    surrogate = objective.surrogate(case.log_probs, old, case.advantages, case.keep, case.used)
    kl = kl_estimate(case.log_probs, case.ref_log_probs, "k3", case.keep)
    terms = surrogate.terms if weights is None else surrogate.terms * weights
    total = reduce_terms(kl_penalised(terms, kl, beta), case.keep, case.used, objective.reduction)
    loss = step_loss(total, loss_divisor(case.keep, case.used, objective.reduction, MAX_LENGTH))
    num_tokens = case.mask.sum()
    counts = {
        "clip_ratio/low_mean": float(surrogate.num_clipped_low / num_tokens),
        "clip_ratio/high_mean": float(surrogate.num_clipped_high / num_tokens),
        "kl": float(kl.detach().sum() / num_tokens),
    }
    return loss, counts


def with_gradient(case: Case, function) -> tuple[Tensor, Tensor, dict[str, float]]:
    case = dataclasses.replace(case, log_probs=case.log_probs.clone().requires_grad_())
    loss, numbers = function(case)
    loss.backward()
    return loss.detach(), case.log_probs.grad, numbers


@EACH
@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("on_policy", [False, True])
def test_loss_gradient_and_counts(objective, loss_type, level, beta, on_policy):
    case = everyone_used()
    old = None if on_policy else case.old_log_probs
    theirs = with_gradient(case, lambda c: trl_loss(objective, loss_type, level, c, old, beta))
    ours = with_gradient(case, lambda c: our_loss(objective, c, old, beta))
    assert_close(ours[0], theirs[0], "float64")
    assert_gradients_close(ours[1], theirs[1], 1e-12)
    compared = ["kl"] if beta else []
    if loss_type != "cispo" and level == "token":
        compared += ["clip_ratio/low_mean", "clip_ratio/high_mean"]
        assert on_policy or any(ours[2][name] > 0 for name in compared[-2:]), (
            "the case must clip something"
        )
    for name in compared:
        assert_close(ours[2][name], theirs[2][name], "float32")


@EACH
def test_importance_weights_enter_alike(objective, loss_type, level):
    """Into the objective, not into the KL penalty."""
    case = everyone_used()
    weights = truncated_importance_weights(case.log_probs, case.old_log_probs, case.keep, cap=1.2)
    theirs = with_gradient(
        case, lambda c: trl_loss(objective, loss_type, level, c, None, 0.1, weights)
    )
    ours = with_gradient(case, lambda c: our_loss(objective, c, None, 0.1, weights))
    assert_close(ours[0], theirs[0], "float64")
    assert_gradients_close(ours[1], theirs[1], 1e-12)
