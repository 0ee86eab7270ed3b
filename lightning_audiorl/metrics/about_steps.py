"""What a reader is told of every metric of an RL step; see `metrics.about`."""

from __future__ import annotations

from lightning_audiorl.metrics.about import COUNT, WHEN_LOOPING, WHEN_SILENT, About

#: Of an RL step, by log key or pattern.
STEP: dict[str, About] = {
    # --- rewards
    "reward/mean": About(
        "mean reward over the samples of the step",
        "rises, with noise: each step has other prompts",
        "flat: see `zero_variance_share`. Rises while metrics of sets fall: the reward is being hacked",
        "reward",
        "by the rewards' weights",
    ),
    "reward/std": About(
        "spread of the rewards over the step",
        "well above 0",
        "as for `zero_variance_share`",
        "reward",
        COUNT,
    ),
    "reward/*mean": About(
        "the same of one reward of the mix",
        "none falls for long",
        "more weight for the one that falls",
        "reward",
        "by the reward",
    ),
    "reward/*std": About(
        "spread of one reward of the mix",
        "above 0 while it still teaches",
        "0 at each step: it does nothing; leave it out",
        "reward",
        COUNT,
    ),
    "reward/diffro/*": About(
        "a differentiable reward of the relaxed samples, `total` with all weights",
        "rises with `cer` falling",
        "rises alone: calibrate Token2Text; larger beta",
        "reward",
        "by the reward",
    ),
    "reward_failures/*": About(
        "samples on which a reward failed", "0", "the log names the first", "samples", COUNT
    ),
    "invalid_share": About(
        "samples without a reward, because one failed", "0", "as for `reward_failures/*`"
    ),
    # --- what is learnt from
    "zero_variance_share": About(
        "groups whose samples all have one reward, from which nothing is learnt",
        "below a half",
        "higher temperature; larger group_size; harder or easier rows; `max_refills`",
    ),
    "nothing_right_share": About(
        "groups of which no sample is right",
        "falls",
        "a reference in the group, see [rarely right](rarely_right.md)",
    ),
    "dropped_group_share": About(
        "groups with fewer than two samples left", "0", "as for `invalid_share`"
    ),
    "used_share": About(
        "samples that the loss uses", "near 1", "look at `dropped/*` and `invalid_share`"
    ),
    "used_group_share": About("groups with a sample that DiffRO uses", "near 1", "looser filters"),
    "dropped/*": About(
        "samples that a filter left out",
        "few of the step's samples",
        "a looser filter",
        "samples",
        COUNT,
    ),
    "refill/flat": About(
        "prompts without a signal, of dynamic sampling",
        "few",
        "as for `zero_variance_share`",
        "prompts",
        COUNT,
    ),
    "refill/prompts": About(
        "further prompts that were sampled for them", "near `refill/flat`", "-", "prompts", COUNT
    ),
    "refill/taken": About(
        "of these, how many took a place", "near `refill/flat`", "-", "prompts", COUNT
    ),
    "refill/left": About(
        "places that stayed without a signal",
        "0",
        "more `max_refills`; other rows",
        "prompts",
        COUNT,
    ),
    "skipped_rows": About(
        "rows of the step left out because their audio cannot be used",
        "0",
        "mend or remove the rows that the log names",
        "rows",
        COUNT,
    ),
    # --- the update
    "loss": About(
        "what is minimised; of a policy gradient its value says little",
        "finite",
        "not finite: lower lr; see `skipped_updates`",
        "by the loss",
        "any",
    ),
    "kl": About(
        "divergence of the policy from its start, a token",
        "grows slowly, then stays",
        "jumps: lower lr, larger beta. Stays 0: nothing is learnt",
        "nats a token",
        COUNT,
    ),
    "entropy": About(
        "uncertainty of the policy's next token",
        "falls slowly",
        "falls to 0: samples become alike; higher temperature, larger beta. Rises: lower lr",
        "nats a token",
        COUNT,
    ),
    "clip_low": About(
        "tokens whose ratio was clipped from below; 0 with one update for a rollout",
        "small",
        "grows: lower lr, fewer updates for a rollout",
    ),
    "clip_high": About(
        "tokens whose ratio was clipped from above; 0 with one update for a rollout",
        "small",
        "as for `clip_low`",
    ),
    "grad_norm": About(
        "norm of the gradient before it is clipped",
        "of one size throughout",
        "spikes: a smaller `max_grad_norm`, lower lr. 0: see `zero_variance_share`",
        "norm",
        COUNT,
    ),
    "grad_norm/*": About(
        "norm of one loss's gradient, where there are several",
        "of one size throughout",
        "its weight",
        "norm",
        COUNT,
    ),
    "grad_cosine": About(
        "cosine of the gradients of two losses",
        "not near -1",
        "they work against each other: lower weight",
        "cosine",
        "-1 to 1",
    ),
    "grad_cosine/*": About(
        "cosine of the first loss's gradient and another's",
        "not near -1",
        "as for `grad_cosine`",
        "cosine",
        "-1 to 1",
    ),
    "*_share": About(
        "share of a loss beside the first in the step's gradient",
        "as its weight wants",
        "its weight",
    ),
    "*/weight": About(
        "factor of a loss beside the first", "as its schedule says", "-", "factor", "any"
    ),
    "*/skipped": About(
        "1 where a loss beside the first was left out as its gradient was not finite",
        "0",
        "lower lr",
        "0 or 1",
    ),
    "skipped_updates": About(
        "updates of the step that were left out: not finite, or nothing to learn from",
        "0",
        "several in a row end the run; lower lr, or see `zero_variance_share`",
        "updates",
        COUNT,
    ),
    "lr": About("learning rate of the step", "as the schedule says", "-", "-", COUNT),
    "tau": About("temperature of DiffRO's relaxation", "as the schedule says", "-", "-", "above 0"),
    "stop_rate": About("samples that end by themselves", "near 1", "a larger `max_new_tokens`"),
    "tokens": About(
        "tokens that supervision was on", "of one size throughout", "-", "tokens", COUNT
    ),
    "perplexity": About(
        "of the right texts, under supervision",
        "falls, then stays",
        "rises on sets: stop earlier",
        "-",
        "1 and more",
    ),
    # --- what is sampled
    "length/mean": About(
        "tokens of a sample, mean",
        "near its start",
        "shrinks: " + WHEN_SILENT + ". Grows: " + WHEN_LOOPING,
        "tokens",
        COUNT,
    ),
    "length/max": About(
        "tokens of the longest sample",
        "below `max_new_tokens`",
        "as for `unfinished_share`",
        "tokens",
        COUNT,
    ),
    "unfinished_share": About(
        "samples that the length cap cut",
        "near 0",
        "a larger `max_new_tokens`; else " + WHEN_LOOPING,
    ),
    "reference_logprob": About(
        "mean log-probability of the right texts of the step's rows",
        "rises, or stays",
        "see [rarely right](rarely_right.md)",
        "nats",
        "up to 0",
    ),
    "empty_answer_probability": About(
        "mean probability of no text where none is right",
        "rises",
        "see [rarely right](rarely_right.md)",
    ),
    "reference/log_prob": About(
        "log-probability of references that are samples of their groups",
        "rises",
        "-",
        "nats a token",
        "up to 0",
    ),
    "reference/advantage": About(
        "mean advantage of such references", "falls towards 0", "-", "advantage", "any"
    ),
    "reference/texts": About("such references in the step", "falls", "-", "texts", COUNT),
    "hotwords/cut": About(
        "hotwords that prompts had no room for", "0", "shorter lists", "words", COUNT
    ),
    # --- another engine
    "engine/mismatch_mean": About(
        "difference of log-probabilities, engine and trainer, mean over tokens",
        "small, and not growing",
        "see [the engine's page](engine.md)",
        "nats",
        COUNT,
    ),
    "engine/*": About(
        "mismatches, weights and restarts of an engine in another process",
        "small, and not growing",
        "see [the engine's page](engine.md)",
        "by the name",
        COUNT,
    ),
    # --- time and memory
    "seconds/*": About(
        "wall-clock seconds of a phase or of an engine's work",
        "of one size throughout",
        "see [phases](phases.md)",
        "s",
        COUNT,
    ),
    "peak_mib/*": About(
        "peak of device memory in a phase",
        "below the device's",
        "see [plan](plan.md)",
        "MiB",
        COUNT,
    ),
    "resident_mib/*": About(
        "what stays on the device in a phase", "constant", "see [phases](phases.md)", "MiB", COUNT
    ),
    "host_mib/*": About(
        "what stays in host memory", "constant", "see [phases](phases.md)", "MiB", COUNT
    ),
    "moving/mib": About(
        "weights moved between host and device",
        "constant",
        "see [phases](phases.md)",
        "MiB",
        COUNT,
    ),
    "moving/*": About(
        "seconds spent moving, and of them those hidden behind work",
        "small beside the step",
        "see [phases](phases.md)",
        "s",
        COUNT,
    ),
    "encoder_cache/gib": About("encoded clips that are kept", "below its limit", "-", "GiB", COUNT),
    "encoder_cache/hit_share": About(
        "clips whose encoding was kept already",
        "grows in the second pass over the data",
        "a larger cache",
    ),
}
