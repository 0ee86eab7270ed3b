"""Pure tensor maths: torch only, no models, no state."""

from __future__ import annotations

from lightning_audiorl.ops.advantages import (
    AdvantageKind,
    Advantages,
    group_advantages,
    soft_overlong_penalty,
)
from lightning_audiorl.ops.importance import sampler_mismatch, truncated_importance_weights
from lightning_audiorl.ops.kl import KLKind, chunked_full_kl, full_vocabulary_kl, kl_estimate
from lightning_audiorl.ops.logprobs import Head, TokenLogProbs, token_log_probs
from lightning_audiorl.ops.masks import (
    keep_finite,
    lengths_to_keep,
    masked,
    masked_mean,
    masked_sum,
)
from lightning_audiorl.ops.objectives import (
    CISPO,
    DAPO,
    GRPO,
    GSPO,
    MWER,
    DrGRPO,
    Objective,
    Surrogate,
    unique_samples,
)
from lightning_audiorl.ops.randomness import key_to_seed, keyed_generator, keyed_uniform
from lightning_audiorl.ops.rank import kendall_tau
from lightning_audiorl.ops.reduce import (
    Reduction,
    kl_penalised,
    loss_divisor,
    reduce_terms,
    step_loss,
)
from lightning_audiorl.ops.relax import (
    RelaxForm,
    Schedule,
    TauSchedule,
    code_logits,
    gumbel_noise,
    keyed_exponentials,
    posterior_noise,
    relax,
    soft_embedding,
)

__all__ = [
    "CISPO",
    "DAPO",
    "GRPO",
    "GSPO",
    "MWER",
    "AdvantageKind",
    "Advantages",
    "DrGRPO",
    "Head",
    "KLKind",
    "Objective",
    "Reduction",
    "RelaxForm",
    "Schedule",
    "Surrogate",
    "TauSchedule",
    "TokenLogProbs",
    "chunked_full_kl",
    "code_logits",
    "full_vocabulary_kl",
    "group_advantages",
    "gumbel_noise",
    "keep_finite",
    "kendall_tau",
    "key_to_seed",
    "keyed_exponentials",
    "keyed_generator",
    "keyed_uniform",
    "kl_estimate",
    "kl_penalised",
    "lengths_to_keep",
    "loss_divisor",
    "masked",
    "masked_mean",
    "masked_sum",
    "posterior_noise",
    "reduce_terms",
    "relax",
    "sampler_mismatch",
    "soft_embedding",
    "soft_overlong_penalty",
    "step_loss",
    "token_log_probs",
    "truncated_importance_weights",
    "unique_samples",
]
