"""GRPO and DiffRO on one rollout, with the sample filter (arXiv 2509.18569)."""

from __future__ import annotations

from lightning_audiorl import ops
from lightning_audiorl.engine import EvalDecoding, Optim, RLModule, Sampler
from lightning_audiorl.engine.loss_checks import usual_sampler_cap
from lightning_audiorl.judges.base import Judge
from lightning_audiorl.losses import PolicyGradient, SampleFilter, WeightedGradients
from lightning_audiorl.losses.diffro import DiffroFilter, DiffROLoss, PositiveAdvantage, Relaxation
from lightning_audiorl.losses.policy_gradient import KLEstimator
from lightning_audiorl.metrics import SetEvaluation
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.rewards import DifferentiableMix, RewardMix
from lightning_audiorl.serving import Engine
from lightning_audiorl.types import Decoding


class GRPODiffRO(RLModule):
    """GRPO's loss on every sample, DiffRO's on those that the filter keeps; the gradients are added.

    Both gradients are measured before they are added: ``grad_norm/grpo``, ``grad_norm/diffro``, ``grad_cosine``, and
    ``diffro_share``, |w g_diffro| / (|g_grpo| + |w g_diffro|). A step in which the filter keeps nothing is a GRPO step.

    Args:
        policy: a model that speaks in the codes of a codec.
        num_steps: RL steps of the run.
        rewards: of the waveforms.
        differentiable: Token2Text and the rewards that it gives.
        diffro_weight: w, fixed or over the RL steps.
        normalise: w is the ratio of the two norms: DiffRO's gradient is scaled to ``w * |g_grpo|``.
        diffro_beta: weight of the full-vocabulary KL within DiffRO's loss; GRPO has its own penalty (``beta``).
        diffro_filters: which samples DiffRO learns from; default `PositiveAdvantage`, the paper's.
        relaxation: of the samples; default straight-through at tau 1 with posterior noise.
        objective, beta, kl, filters, sampler_cap: see `GRPO`.
        engine: where completions come from; None is our own sampler. See `VllmEngine`.
        group_size: G.
        decoding: of the rollout; temperature above 0, no truncation.
        rollout_batch_size: prompts (whole groups) per sampling pass; 0 takes all at once.
        max_refills, num_updates, micro_batch_size, max_tokens, chunk_size, optim, eval_decodings, keywords, evaluation,
            judges, seed, log_every_n_steps, keep_context: see `RLModule`.
    """

    def __init__(
        self,
        policy: Policy,
        num_steps: int,
        *,
        rewards: RewardMix,
        differentiable: DifferentiableMix,
        diffro_weight: float | ops.Schedule = 1.0,
        normalise: bool = False,
        diffro_beta: float = 0.0,
        diffro_filters: list[DiffroFilter] | None = None,
        relaxation: Relaxation | None = None,
        objective: ops.Objective | None = None,
        beta: float = 0.04,
        kl: KLEstimator = "k3",
        filters: list[SampleFilter] | None = None,
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
        keep_context: bool = False,
    ) -> None:
        if diffro_beta < 0:
            raise ValueError(f"GRPODiffRO: want diffro_beta >= 0, got {diffro_beta}")

        cap = usual_sampler_cap(engine, sampler_cap)
        grpo = PolicyGradient(objective, beta, kl, cap, filters)
        kept = [PositiveAdvantage()] if diffro_filters is None else diffro_filters
        diffro = DiffROLoss(differentiable, relaxation, kept, diffro_beta)
        sampler = Sampler(group_size, decoding or Decoding(), rollout_batch_size, engine)

        super().__init__(
            policy,
            num_steps,
            losses=[grpo, diffro],
            combiner=WeightedGradients(diffro_weight, normalise),
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
            keep_context=keep_context,
        )
