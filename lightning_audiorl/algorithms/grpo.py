"""Group relative policy optimisation (arXiv 2402.03300) and its relatives, over any policy and any rewards."""

from __future__ import annotations

from typing import Any

from lightning_audiorl import ops
from lightning_audiorl.engine import EvalDecoding, Optim, RLModule, Sampler
from lightning_audiorl.engine.loss_checks import usual_sampler_cap
from lightning_audiorl.judges.base import Judge
from lightning_audiorl.losses import (
    CrossEntropy,
    Loss,
    PolicyGradient,
    ReferenceSample,
    SampleFilter,
    WeightedGradients,
)
from lightning_audiorl.losses.policy_gradient import KLEstimator
from lightning_audiorl.metrics import SetEvaluation
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.rewards import RewardMix
from lightning_audiorl.serving import Engine
from lightning_audiorl.types import Decoding


class GRPO(RLModule):
    """Sample G hypotheses per prompt, reward them, compare them within their group, update.

    Rollout and update both run in eval mode: with dropout in one of them alone the ratio is not 1 on policy.

    Example:

        module = GRPO(
            WhisperPolicy("openai/whisper-base"),
            num_steps=100,
            rewards=RewardMix([Accuracy(floor=-1.0), Hallucination()]),
            group_size=8,
        )
        Trainer(max_epochs=1).fit(module, AsrDataModule(train="train.jsonl"))

    Args:
        policy: the model that trains.
        num_steps: RL steps of the run.
        rewards: the weighted rewards.
        objective: what is maximised (`ops.GRPO`, `ops.DAPO`, `ops.MWER`, ...); default `ops.GRPO`.
        beta: weight of the KL penalty to the policy at RL start; 0 runs no reference phase.
        kl: its estimator.
        filters: which samples enter the loss.
        reference_sample: the reference text is one more sample of its group; None is not at all.
        sft_weight: w of a second loss, ``w * CrossEntropy`` of the reference texts, fixed or over the RL steps; None is
            no such loss.
        sampler_cap: truncate importance weights of a sampler that is another engine at this value; None is 2 for an
            ``engine``, and off without one.
        engine: where completions come from; None is our own sampler. See `VllmEngine`.
        group_size: G.
        decoding: of the rollout; temperature above 0.
        rollout_batch_size: prompts (whole groups) per sampling pass; 0 takes all at once.
        max_refills, num_updates, micro_batch_size, max_tokens, chunk_size, optim, eval_decodings, keywords, evaluation,
            judges, seed, log_every_n_steps, reference_logprob_every_n_steps, keep_context: see `RLModule`.
    """

    def __init__(
        self,
        policy: Policy,
        num_steps: int,
        *,
        rewards: RewardMix,
        objective: ops.Objective | None = None,
        beta: float = 0.04,
        kl: KLEstimator = "k3",
        filters: list[SampleFilter] | None = None,
        reference_sample: ReferenceSample | None = None,
        sft_weight: float | ops.Schedule | None = None,
        sampler_cap: float | None = None,
        engine: Engine | None = None,
        group_size: int = 8,
        decoding: Decoding | None = None,
        rollout_batch_size: int = 0,
        max_refills: int = 0,
        num_updates: int = 1,
        micro_batch_size: int = 0,
        max_tokens: int = 0,
        chunk_size: int | None = None,
        optim: Optim | None = None,
        eval_decodings: dict[str, EvalDecoding] | None = None,
        keywords: list[str] | None = None,
        evaluation: SetEvaluation | None = None,
        judges: dict[str, Judge] | None = None,
        seed: int = 0,
        log_every_n_steps: int = 1,
        reference_logprob_every_n_steps: int = 10,
        keep_context: bool = False,
    ) -> None:
        cap = usual_sampler_cap(engine, sampler_cap)
        losses: list[Loss[Any]] = [
            PolicyGradient(objective, beta, kl, cap, filters, reference_sample)
        ]
        combiner = None
        if sft_weight is not None:
            losses.append(CrossEntropy())
            combiner = WeightedGradients(sft_weight)
        sampler = Sampler(group_size, decoding or Decoding(), rollout_batch_size, engine)

        super().__init__(
            policy,
            num_steps,
            losses=losses,
            combiner=combiner,
            rewards=rewards,
            sampler=sampler,
            # How a step is sampled, cut into passes and optimised.
            max_refills=max_refills,
            num_updates=num_updates,
            micro_batch_size=micro_batch_size,
            max_tokens=max_tokens,
            chunk_size=chunk_size,
            optim=optim,
            # What is measured, and by whom.
            eval_decodings=eval_decodings,
            keywords=keywords,
            evaluation=evaluation,
            judges=judges,
            # The run.
            seed=seed,
            log_every_n_steps=log_every_n_steps,
            reference_logprob_every_n_steps=reference_logprob_every_n_steps,
            keep_context=keep_context,
        )
