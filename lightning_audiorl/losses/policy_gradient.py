"""The policy-gradient loss of GRPO (arXiv 2402.03300) and its relatives, over any policy and any rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from lightning_audiorl import ops
from lightning_audiorl.checks import check_number
from lightning_audiorl.fields import Shape
from lightning_audiorl.losses.advantages import GroupAdvantages
from lightning_audiorl.losses.base import Loss, LossSettings, Prepared, Scorer
from lightning_audiorl.losses.reference_sample import ReferenceSample
from lightning_audiorl.losses.sample_filters import SampleFilter
from lightning_audiorl.losses.step import MicroBatch, RLStep, group_part
from lightning_audiorl.models.policy import Context
from lightning_audiorl.types import Rollout, Utterance

# Sums over the reference texts, where these are samples: log-probability of a whole text, advantage, their number.
_REFERENCE_SUMS = ("reference_log_prob", "reference_advantage", "reference_texts")

KLEstimator = Literal["k1", "k2", "k3"]


@dataclass(frozen=True, kw_only=True)
class PreparedPolicyGradient(Prepared):
    """What the updates of one step need.

    Args:
        used: [B, G] bool, the samples that enter the loss.
        advantages: [B, G].
        old_log_probs: [B, G, T] of the policy before the first inner update; None when that is not needed.
        reference_log_probs: [B, G, T]; None without a KL term.
        weights: [B, G, T] truncated importance weights; None when the sampler is the trainer.
        reference_advantages: [B] of the reference texts, NaN of a row without one; None where they are no samples.
    """

    used: Annotated[Tensor, Shape("B G")]
    advantages: Annotated[Tensor, Shape("B G")]
    old_log_probs: Annotated[Tensor | None, Shape("B G T")] = None
    reference_log_probs: Annotated[Tensor | None, Shape("B G T")] = None
    weights: Annotated[Tensor | None, Shape("B G T")] = None
    reference_advantages: Annotated[Tensor | None, Shape("B")] = None


class PolicyGradient(Loss[PreparedPolicyGradient]):
    """Raise the probability of samples that are better than their group, lower that of the others.

    Args:
        objective: what is maximised (`ops.GRPO`, `ops.DAPO`, `ops.MWER`, ...); default `ops.GRPO`.
        beta: weight of the KL penalty to the policy at RL start; 0 runs no reference phase.
        kl: its estimator, see `ops.kl_estimate`.
        sampler_cap: truncate importance weights of a sampler that is another engine at this value; None is off.
        filters: which samples enter the loss.
        reference_sample: the reference text is one more sample of its group; None is not at all.
    """

    name = "grpo"
    progress_bar: ClassVar[Mapping[str, str]] = {"reward": "reward/mean", "kl": "kl"}

    def __init__(
        self,
        objective: ops.Objective | None = None,
        beta: float = 0.04,
        kl: KLEstimator = "k3",
        sampler_cap: float | None = None,
        filters: Sequence[SampleFilter] | None = None,
        reference_sample: ReferenceSample | None = None,
    ) -> None:
        check_number("PolicyGradient.beta", beta, at_least=0)
        if sampler_cap is not None:
            check_number("PolicyGradient.sampler_cap", sampler_cap, above=0)

        self.objective = objective or ops.GRPO()
        self.beta = beta
        self.kl: KLEstimator = kl
        self.sampler_cap = sampler_cap
        self.advantages = GroupAdvantages(
            self.objective.advantage,
            self.objective.drop_zero_variance,
            list(filters or []),
            reference_sample,
        )

        if reference_sample is not None and self.objective.reduction == "group_mean":
            raise ValueError(
                f"PolicyGradient.reference_sample: {type(self.objective).__name__} weighs the samples of a group by "
                "their own probabilities, which the reference has no part in; choose another objective"
            )
        self.reference_sample = reference_sample

        self.sum_names = (
            "clip_low",
            "clip_high",
            *(["kl"] if beta else []),
            "entropy",
            "loss",
            "tokens",
            *(_REFERENCE_SUMS if reference_sample is not None else []),
        )

    def bind(self, settings: LossSettings) -> None:
        super().bind(settings)
        if self.reference_sample is not None and settings.policy.speaks:
            raise ValueError(
                "PolicyGradient.reference_sample: is for policies that transcribe; "
                f"{type(settings.policy).__name__} speaks"
            )

    @property
    def needs_reference(self) -> bool:
        return self.beta > 0

    @property
    def needs_rewards(self) -> str:
        return type(self).__name__

    def has_signal(self, step: RLStep) -> list[bool]:
        """Groups with an advantage that is not 0."""
        return [bool(group.any()) for group in step.advantages.values != 0]

    def prepare(self, step: RLStep, scorer: Scorer) -> PreparedPolicyGradient:
        rollout = step.rollout
        used = step.advantages.used
        reference = scorer.reference_log_probs() if self.needs_reference else None

        # The first of K updates is on policy: only what follows it, or another engine's sampler, needs old log-probs.
        old = None
        if self.settings.num_updates > 1 or self.sampler_cap is not None:
            old = scorer.log_probs()

        weights = None
        metrics: dict[str, float] = {}
        if self.sampler_cap is not None and old is not None:
            sampled = (old, rollout.log_probs, rollout.keep, self.sampler_cap)
            weights = ops.truncated_importance_weights(*sampled)
            mismatch = ops.sampler_mismatch(*sampled)
            metrics = {f"engine/{name}": value for name, value in mismatch.items()}

        longest = self.settings.decoding.max_new_tokens
        count = float(ops.loss_divisor(rollout.keep, used, self.objective.reduction, longest))
        if step.advantages.reference is not None:
            targets, wanted = self._targets(
                step.context, step.batch.rows, step.advantages.reference
            )
            count += float(
                ops.loss_divisor(targets.keep, wanted, self.objective.reduction, longest)
            )

        return PreparedPolicyGradient(
            used=used,
            count=count,
            advantages=step.advantages.values,
            old_log_probs=old,
            reference_log_probs=reference,
            weights=weights,
            metrics=metrics,
            reference_advantages=step.advantages.reference,
        )

    def _targets(
        self, context: Context, rows: Sequence[Utterance], advantages: Tensor
    ) -> tuple[Rollout, Tensor]:
        """The reference texts as a rollout of one sample each, and [B, 1] bool, which of them are wanted."""
        wanted = advantages.isfinite()
        texts = [
            row.text if is_wanted else ""
            for row, is_wanted in zip(rows, wanted.tolist(), strict=True)
        ]
        return self.settings.policy.targets(context, texts), wanted[:, None]

    def compute(
        self, prepared: PreparedPolicyGradient, micro_batch: MicroBatch, divisor: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rollout = micro_batch.samples
        used = prepared.used[micro_batch.index]
        mask = rollout.keep & used[..., None]

        # The ratio to the policy that sampled; without old log-probs it is 1, and only its gradient counts.
        scored = self.settings.token_log_probs(micro_batch.context, rollout, with_entropy=True)
        old = group_part(prepared.old_log_probs, micro_batch)

        # An expectation over hypotheses counts each of them once, however often it was drawn.
        unique = None
        if self.objective.needs_unique:
            unique = ops.unique_samples(rollout.tokens, rollout.keep, used)

        surrogate = self.objective.surrogate(
            scored.log_probs,
            old,
            prepared.advantages[micro_batch.index],
            rollout.keep,
            used,
            unique,
        )
        sums = {"clip_low": surrogate.num_clipped_low, "clip_high": surrogate.num_clipped_high}

        # What another engine samples more often than this one must weigh less.
        terms = surrogate.terms
        if prepared.weights is not None:
            terms = terms * group_part(prepared.weights, micro_batch)

        # The penalty enters per token, so it shares the objective's reduction.
        if prepared.reference_log_probs is not None:
            reference = group_part(prepared.reference_log_probs, micro_batch)
            kl = ops.kl_estimate(scored.log_probs, reference, self.kl, rollout.keep)
            terms = ops.kl_penalised(terms, kl, self.beta)
            sums["kl"] = ops.masked_sum(kl.detach(), mask)

        # Only logged: it has no gradient.
        assert scored.entropy is not None
        sums["entropy"] = ops.masked_sum(scored.entropy, mask)

        total = ops.reduce_terms(terms, rollout.keep, used, self.objective.reduction)
        if prepared.reference_advantages is not None:
            of_references, more = self._reference_total(
                prepared.reference_advantages[micro_batch.index], micro_batch
            )
            total = total + of_references
            sums |= more
        loss = ops.step_loss(total, torch.tensor(divisor, device=total.device))
        return loss, sums | {"loss": loss.detach(), "tokens": mask.sum()}

    def _reference_total(
        self, advantages: Tensor, micro_batch: MicroBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the reference texts of a micro-batch add, and their sums."""
        assert self.reference_sample is not None
        targets, wanted = self._targets(micro_batch.context, micro_batch.rows, advantages)
        log_probs = self.settings.token_log_probs(micro_batch.context, targets).log_probs

        terms = self.reference_sample.terms(log_probs, advantages.nan_to_num())
        total = ops.reduce_terms(terms, targets.keep, wanted, self.objective.reduction)
        per_text = ops.masked_sum(log_probs.detach(), targets.keep & wanted[..., None])
        sums = (per_text, advantages.nan_to_num().sum(), wanted.sum())
        return total, dict(zip(_REFERENCE_SUMS, sums, strict=True))

    def metrics(
        self, prepared: PreparedPolicyGradient, sums: dict[str, float], divisor: float
    ) -> dict[str, float]:
        """The loss, and means over the used tokens: shares clipped, KL, entropy."""
        num_tokens = max(1.0, sums["tokens"])
        per_token = {
            name: value / num_tokens
            for name, value in sums.items()
            if name not in ("loss", "tokens", *_REFERENCE_SUMS)
        }
        metrics = {"loss": sums["loss"]} | per_token
        if self.reference_sample is None:
            return metrics

        log_prob, advantage, num_texts = (sums[name] for name in _REFERENCE_SUMS)
        return metrics | {
            "reference/log_prob": log_prob / max(1.0, num_texts),
            "reference/advantage": advantage / max(1.0, num_texts),
            "reference/texts": num_texts,
        }
