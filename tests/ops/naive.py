"""Objectives and reductions as loops over single numbers: what ops/objectives and ops/reduce must equal."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_audiorl.ops import CISPO, DAPO, GRPO, GSPO, MWER, DrGRPO, Objective
from tests.ops.cases import Case

OBJECTIVES = [
    GRPO(),
    DrGRPO(),
    DAPO(),
    GSPO(clip_low=0.03, clip_high=0.04),
    CISPO(),
    CISPO(clip_low=0.1),
    MWER(),
]
MAX_LENGTH = 7


def objective_id(objective: object) -> str:
    return (
        str(objective).split(", reduction")[0] + ")"
        if isinstance(objective, Objective)
        else str(objective)
    )


def token_value(
    objective: Objective, new: Tensor, old: Tensor, advantage: float, sequence_ratio: Tensor
) -> Tensor:
    if isinstance(objective, CISPO):
        lowest = 0.0 if objective.clip_low is None else 1 - objective.clip_low
        weight = min(max((new - old).exp().item(), lowest), 1 + objective.clip_high)
        return weight * advantage * new
    assert isinstance(objective, GRPO)
    ratio = sequence_ratio if isinstance(objective, GSPO) else (new - old).exp()
    if advantage > 0 and ratio > 1 + objective.clip_high:
        ratio = torch.tensor(1 + objective.clip_high, dtype=torch.float64)
    if advantage < 0 and ratio < 1 - objective.clip_low:
        ratio = torch.tensor(1 - objective.clip_low, dtype=torch.float64)
    return ratio * advantage


def naive_samples(objective: Objective, case: Case, b: int) -> dict[int, list[Tensor]]:
    """Token values of the used samples of group b."""
    groups = {}
    for g in range(case.used.shape[1]):
        if not case.used[b, g]:
            continue
        places = [t for t in range(case.keep.shape[2]) if case.keep[b, g, t]]
        gap = torch.stack([case.log_probs[b, g, t] - case.old_log_probs[b, g, t] for t in places])
        ratio = (gap.sum() / len(places)).exp()
        groups[g] = [
            token_value(
                objective,
                case.log_probs[b, g, t],
                case.old_log_probs[b, g, t],
                case.advantages[b, g].item(),
                ratio,
            )
            for t in places
        ]
    return groups


def mwer_group(case: Case, b: int) -> Tensor:
    used = [g for g in range(case.used.shape[1]) if case.used[b, g]]
    weights = [case.log_probs[b, g][case.keep[b, g]].sum().exp() for g in used]
    return sum(
        weight * case.advantages[b, g] for weight, g in zip(weights, used, strict=True)
    ) / sum(weights)


def naive_loss(objective: Objective, case: Case) -> Tensor:
    """The loss to be minimised, with the objective's own reduction."""
    groups = [b for b in range(case.used.shape[0]) if case.used[b].any()]
    if isinstance(objective, MWER):
        return -sum(mwer_group(case, b) for b in groups) / len(groups)
    return -naive_reduce([naive_samples(objective, case, b) for b in groups], objective.reduction)


def naive_reduce(groups: list[dict[int, list[Tensor]]], reduction: str) -> Tensor:
    samples = [tokens for group in groups for tokens in group.values()]
    if reduction == "sample_mean":
        return sum(sum(tokens) / len(tokens) for tokens in samples) / len(samples)
    if reduction == "token_mean":
        return sum(sum(tokens) for tokens in samples) / sum(len(tokens) for tokens in samples)
    if reduction == "fixed_length":
        return sum(sum(tokens) for tokens in samples) / (len(samples) * MAX_LENGTH)
    assert reduction == "group_mean"
    means = [
        sum(sum(tokens) / len(tokens) for tokens in group.values()) / len(group) for group in groups
    ]
    return sum(means) / len(means)
