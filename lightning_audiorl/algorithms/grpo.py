"""Group relative policy optimisation (arXiv 2402.03300) and its relatives, over any policy and any rewards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_audiorl import ops
from lightning_audiorl.algorithms.filters import SampleFilter
from lightning_audiorl.algorithms.micro_batches import micro_batches
from lightning_audiorl.algorithms.ranks import agreed, equal_passes, total
from lightning_audiorl.algorithms.refill import Sampled
from lightning_audiorl.algorithms.sampled import SamplingModule
from lightning_audiorl.algorithms.step import Step, rollout_figures
from lightning_audiorl.models.policy import Context
from lightning_audiorl.types import PromptBatch, Rollout, Scores


class GRPO(SamplingModule):
    """Sample G hypotheses per prompt, reward them, compare them within their group, update.

    Rollout and update both run in eval mode: with dropout in one of them alone the ratio is not 1 on policy.

    Args:
        objective: what is maximised (`ops.GRPO`, `ops.DAPO`, `ops.MWER`, ...); default `ops.GRPO`.
        beta: weight of the KL penalty to the policy at RL start; 0 runs no reference phase.
        kl: its estimator.
        num_updates: K inner updates per rollout.
        micro_batch_size: prompts (whole groups) per forward and backward pass; 0 is no limit.
        max_tokens: padded tokens per forward and backward pass, a prompt counted once per group; 0 is no limit.
        chunk_size: positions per call of the head; None keeps one chunk's logits small, 0 takes all at once.
        sampler_cap: truncate importance weights of a sampler that is another engine at this value; None is off.
        filters: which samples enter the loss.
        kwargs: see `SamplingModule` and `AudioRLModule`.
    """

    def __init__(
        self,
        *args: Any,
        objective: ops.Objective | None = None,
        beta: float = 0.04,
        kl: Literal["k1", "k2", "k3"] = "k3",
        num_updates: int = 1,
        micro_batch_size: int = 0,
        max_tokens: int = 0,
        chunk_size: int | None = None,
        sampler_cap: float | None = None,
        filters: list[SampleFilter] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.objective = objective or ops.GRPO()
        self.beta = beta
        self.kl: Literal["k1", "k2", "k3"] = kl
        self.num_updates = num_updates
        self.micro_batch_size = micro_batch_size
        self.max_tokens = max_tokens
        self.chunk_size = chunk_size
        self.sampler_cap = sampler_cap
        self.filters = filters or []
        self.last_step: Step | None = None
        if num_updates < 1 or beta < 0 or min(micro_batch_size, max_tokens) < 0:
            raise ValueError("want num_updates >= 1, beta >= 0, batch sizes >= 0")

    @property
    def needs_reference(self) -> bool:
        """Whether there is a KL penalty."""
        return self.beta > 0

    def training_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """One RL step: `collect`, then `update`."""
        self.last_step = None  # its context need not be held beside the new one
        with self.policy.evaluating():
            self.last_step = step = self.collect(batch)
            metrics = self.update(step)
        metrics |= rollout_figures(step) | step.refill
        self.log_dict(
            {"reward": metrics["reward/mean"], "kl": metrics.get("kl", 0.0)}, prog_bar=True, logger=False, batch_size=1
        )
        self.finish_step(metrics, weight=len(batch))

    def collect(self, batch: PromptBatch) -> Step:
        """Encode, rollout, reward, reference, old log-probs: all that comes before the update."""
        sampled, refill = self.gather(batch)
        with agreed(self.trainer.strategy, "scoring"):
            context, rollout = sampled.context, sampled.rollout
            advantages, dropped = self._advantages(sampled.scores, rollout)
            reference = None
            if self.reference is not None:
                with self.phase("reference"), self.reference.swapped_in(self.policy):
                    reference = self._log_probs_of_all(context, rollout)
            old = None
            if self.num_updates > 1 or self.sampler_cap is not None:
                with self.phase("update"):
                    old = self._log_probs_of_all(context, rollout)
            weights = None
            if self.sampler_cap is not None and old is not None:
                weights = ops.truncated_importance_weights(old, rollout.log_probs, rollout.keep, self.sampler_cap)
        return Step(
            **vars(sampled),
            advantages=advantages,
            old_log_probs=old,
            reference_log_probs=reference,
            weights=weights,
            dropped=dropped,
            refill=refill,
        )

    def teaches(self, sampled: Sampled) -> list[bool]:
        """Groups with an advantage that is not 0."""
        advantages, _ = self._advantages(sampled.scores, sampled.rollout)
        return [bool(group.any()) for group in advantages.values != 0]

    def _advantages(self, scores: Scores, rollout: Rollout) -> tuple[ops.Advantages, dict[str, int]]:
        valid = scores.valid
        dropped: dict[str, int] = {}
        for rule in self.filters:
            keep = rule.keep(scores, rollout)
            name = type(rule).__name__
            dropped[name] = dropped.get(name, 0) + int((valid & ~keep).sum())
            valid = valid & keep
        advantages = ops.group_advantages(
            scores.total, valid, self.objective.advantage, drop_zero_variance=self.objective.drop_zero_variance
        )
        return advantages, dropped

    def _micro_batches(self, context: Context, rollout: Rollout) -> list[tuple[list[int], bool]]:
        """Prompts in pieces of neighbouring lengths, and whether a piece counts; see `equal_passes`."""
        pieces = micro_batches(
            context.prompt_lengths,
            rollout.lengths.amax(-1).tolist(),
            self.group_size,
            self.max_tokens,
            self.micro_batch_size,
        )
        return equal_passes(self.trainer.strategy, pieces)

    def _score(self, context: Context, rollout: Rollout, with_entropy: bool = False) -> ops.TokenLogProbs:
        hidden = self.policy.hidden(context, rollout)
        scored = ops.token_log_probs(
            hidden,
            self.policy.head,
            rollout.tokens.flatten(0, 1),
            rollout.keep.flatten(0, 1),
            self.decoding.temperature,
            None if rollout.support is None else rollout.support.flatten(0, 1),
            self.chunk_size,
            with_entropy,
        )
        shape = rollout.tokens.shape
        entropy = None if scored.entropy is None else scored.entropy.detach().view(shape)
        return ops.TokenLogProbs(scored.log_probs.view(shape), entropy)

    @torch.no_grad()
    def _log_probs_of_all(self, context: Context, rollout: Rollout) -> Tensor:
        out = torch.zeros_like(rollout.log_probs)
        for index, _, part_context, part in self._parts(context, rollout):
            out[index, :, : part.tokens.shape[-1]] = self._score(part_context, part).log_probs
        return out

    def _parts(self, context: Context, rollout: Rollout) -> Iterator[tuple[list[int], bool, Context, Rollout]]:
        for index, counts in self._micro_batches(context, rollout):
            whole = index == list(range(len(context)))
            yield (
                index,
                counts,
                context if whole else context.select(index),
                rollout if whole else rollout.select(index),
            )

    def update(self, step: Step) -> dict[str, float]:
        """K updates on one rollout; returns what the last saw (KL, entropy, clipping, gradient norm, loss)."""
        totals: dict[str, float] = {}
        skipped = 0.0
        for _ in range(self.num_updates):
            with self.phase("update"):
                totals = self._update_once(step)
            skipped += totals["skipped_updates"]
        return totals | {"skipped_updates": skipped}

    def _update_once(self, step: Step) -> dict[str, float]:
        used, keep = step.advantages.used, step.rollout.keep
        reduction, longest = self.objective.reduction, self.decoding.max_new_tokens
        strategy: Any = self.trainer.strategy
        divisor = torch.tensor(total(strategy, ops.loss_divisor(keep, used, reduction, longest)), device=keep.device)
        scale = getattr(strategy, "loss_scale", 1.0)
        sums: dict[str, float] = {}
        for index, counts, context, part in self._parts(step.context, step.rollout):
            scored = self._score(context, part, with_entropy=True)
            width = part.tokens.shape[-1]
            loss, counted = self._part_loss(step, index, width, part, scored, divisor)
            self.manual_backward(loss * (scale * counts))
            for name, value in counted.items():
                sums[name] = sums.get(name, 0.0) + float(value) * counts
        sums = {name: total(strategy, value) for name, value in sums.items()}
        tokens = max(1.0, sums.pop("tokens"))
        figures = {"loss": sums.pop("loss")}
        return figures | {name: value / tokens for name, value in sums.items()} | self.optimizer_step_clipped()

    def _part_loss(
        self, step: Step, index: list[int], width: int, part: Rollout, scored: ops.TokenLogProbs, divisor: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        used = step.advantages.used[index]
        old = None if step.old_log_probs is None else step.old_log_probs[index][:, :, :width]
        unique = ops.unique_samples(part.tokens, part.keep, used) if isinstance(self.objective, ops.MWER) else None
        surrogate = self.objective.surrogate(
            scored.log_probs, old, step.advantages.values[index], part.keep, used, unique
        )
        terms = surrogate.terms if step.weights is None else surrogate.terms * step.weights[index][:, :, :width]
        counted = {"clip_low": surrogate.num_clipped_low, "clip_high": surrogate.num_clipped_high}
        mask = part.keep & used[..., None]
        if step.reference_log_probs is not None:
            reference = step.reference_log_probs[index][:, :, :width]
            kl = ops.kl_estimate(scored.log_probs, reference, self.kl, part.keep)
            terms = ops.kl_penalised(terms, kl, self.beta)
            counted["kl"] = ops.masked_sum(kl.detach(), mask)
        if scored.entropy is not None:
            counted["entropy"] = ops.masked_sum(scored.entropy, mask)
        loss = ops.step_loss(ops.reduce_terms(terms, part.keep, used, self.objective.reduction), divisor)
        return loss, counted | {"loss": loss.detach(), "tokens": mask.sum()}
