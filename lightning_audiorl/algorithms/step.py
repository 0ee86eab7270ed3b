"""What one RL step has gathered before its update, and its figures."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from lightning_audiorl import ops
from lightning_audiorl.models.policy import Context
from lightning_audiorl.types import Hypothesis, PromptBatch, Rollout, Scores


@dataclass(frozen=True)
class Step:
    """Everything one RL step has gathered before its update.

    Args:
        context, rollout, scores: of B prompts, G samples each.
        groups: the decoded samples.
        advantages: of the samples, and which are used.
        old_log_probs: [B, G, T] of the policy before the first inner update; None when that is not needed.
        reference_log_probs: [B, G, T]; None without a KL term.
        weights: [B, G, T] truncated importance weights; None when the sampler is the trainer.
        dropped: samples taken out, by filter name.
        refill: what dynamic sampling did; empty where it is off.
    """

    batch: PromptBatch
    context: Context
    rollout: Rollout
    scores: Scores
    groups: list[list[Hypothesis]]
    advantages: ops.Advantages
    old_log_probs: Tensor | None
    reference_log_probs: Tensor | None
    weights: Tensor | None
    dropped: dict[str, int]
    refill: dict[str, float] = field(default_factory=dict)


def rollout_figures(step: Step) -> dict[str, float]:
    """Figures of the rollout: rewards and their parts, lengths, what was left out."""
    scores, rollout, advantages = step.scores, step.rollout, step.advantages
    num_groups = scores.valid.shape[0]
    out = {
        "zero_variance_share": advantages.num_zero_variance / num_groups,
        "dropped_group_share": advantages.num_dropped / num_groups,
        "invalid_share": 1 - float(scores.valid.float().mean()),
        "used_share": float(advantages.used.float().mean()),
        "length/mean": float(rollout.lengths.float().mean()),
        "length/max": float(rollout.lengths.max()),
        "unfinished_share": 1 - float(rollout.finished.float().mean()),
    }
    out |= {f"dropped/{name}": float(count) for name, count in step.dropped.items()}
    out |= {f"reward_failures/{name}": float(count) for name, count in scores.failures.items()}
    for name, values in {"": scores.total, **{f"{name}/": part for name, part in scores.parts.items()}}.items():
        kept = values[scores.valid & ~values.isnan()]  # a part of weight 0 may fail on a valid sample
        out[f"reward/{name}mean"] = float(kept.mean()) if len(kept) else float("nan")
        out[f"reward/{name}std"] = float(kept.std()) if len(kept) > 1 else 0.0
    return out
