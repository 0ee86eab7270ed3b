"""DiffRO (arXiv 2507.05911): the gradient of a Token2Text's reward, through relaxed speech codes, into the policy."""

from __future__ import annotations

from lightning_audiorl.engine import EvalDecoding, Optim, RLModule, Sampler
from lightning_audiorl.judges.base import Judge
from lightning_audiorl.losses.diffro import DiffroFilter, DiffROLoss, Relaxation
from lightning_audiorl.metrics import SetEvaluation
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.rewards import DifferentiableMix, RewardMix
from lightning_audiorl.serving import Engine
from lightning_audiorl.types import Decoding


class DiffRO(RLModule):
    """Sample, relax the samples position by position, and climb the reward's own gradient.

    Without ``rewards`` no waveform is made. With them they are logged, and filters may look at them; nothing else does.

    Args:
        policy: a model that speaks in the codes of a codec.
        num_steps: RL steps of the run.
        differentiable: Token2Text and the rewards that it gives.
        relaxation: of the samples; default straight-through at tau 1 with posterior noise.
        diffro_filters: which samples are learnt from, in order.
        beta: weight of the full-vocabulary KL; 0 runs no reference phase, and the gradient reaches the policy through
            the relaxed codes alone.
        rewards: of the waveforms; None for none.
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
        differentiable: DifferentiableMix,
        relaxation: Relaxation | None = None,
        diffro_filters: list[DiffroFilter] | None = None,
        beta: float = 0.1,
        rewards: RewardMix | None = None,
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
        loss = DiffROLoss(differentiable, relaxation, diffro_filters, beta)
        sampler = Sampler(group_size, decoding or Decoding(), rollout_batch_size, engine)

        super().__init__(
            policy,
            num_steps,
            losses=[loss],
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
