"""The rollout of a step: sampling passes over its prompts, and samples as hypotheses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from lightning import Callback
from torch import Tensor

from lightning_audiorl.checks import check_count
from lightning_audiorl.engine.engine_life import EngineLife
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.losses.step import RLStep, ScoredRollout
from lightning_audiorl.models.policy import Context, Policy, SampleKey
from lightning_audiorl.ops.join import join_rollouts
from lightning_audiorl.rewards import RewardMix
from lightning_audiorl.serving import Engine, LocalEngine
from lightning_audiorl.types import Decoding, Hypothesis, PromptBatch, Rollout, Scores


@dataclass(frozen=True)
class Sampler:
    """Draws G samples of each prompt.

    Args:
        group_size: G, at least 2: an advantage compares samples.
        decoding: temperature above 0.
        batch_size: prompts (whole groups) per sampling pass; 0 takes all at once.
        engine: where completions come from; None is our own sampler, `LocalEngine`.

    Example:
        >>> Sampler(group_size=1)
        Traceback (most recent call last):
        ...
        ValueError: group_size must be at least 2, got 1: an advantage compares samples
    """

    group_size: int = 8
    decoding: Decoding = field(default_factory=Decoding)
    batch_size: int = 0
    engine: Engine | None = None

    def __post_init__(self) -> None:
        check_count("group_size", self.group_size)
        if self.group_size < 2:
            raise ValueError(
                f"group_size must be at least 2, got {self.group_size}: an advantage compares samples"
            )
        if self.decoding.temperature == 0:
            raise ValueError("decoding.temperature is 0: a greedy group has no variance; use 1.0")
        check_count("rollout_batch_size", self.batch_size)

    @property
    def source(self) -> Engine:
        """Where completions come from."""
        return self.engine or LocalEngine()

    def callbacks(self) -> list[Callback]:
        """What a run needs of an engine that is another process."""
        return [] if self.engine is None else [EngineLife(self.engine)]

    def sample(
        self, policy: Policy, batch: PromptBatch, context: Context, key: SampleKey
    ) -> Rollout:
        """Tokens [B, G, T] of the batch's prompts, in passes over prompts of neighbouring durations."""
        # Draws are keyed by prompt and sample: passes change no token.
        size = self.batch_size or len(batch)
        by_duration = sorted(range(len(batch)), key=lambda i: int(batch.num_samples[i]))

        # A pass lasts as long as its longest completion, and longer clips have longer ones.
        rollouts = []
        engine = self.source
        with engine.rollout(policy):
            for start in range(0, len(batch), size):
                index = by_duration[start : start + size]
                some = context.select(index)
                rollout = engine.sample(policy, some, self.group_size, self.decoding, key)
                rollouts.append((index, rollout))
        return join_rollouts(rollouts)


def hypotheses(
    policy: Policy, batch: PromptBatch, rollout: Rollout, context: Context
) -> list[list[Hypothesis]]:
    """B groups of G decoded samples, as rewards and metrics take them.

    Speech gets the speaker prompt that it was made from, one tensor for its group; a text the prompt that the model
    read, where its row has hotwords.
    """
    decoded = policy.decode(rollout, context)
    lengths = rollout.lengths.tolist()
    finished = rollout.finished.tolist()
    prompts = _prompt_texts(policy, batch, context)

    groups: list[list[Hypothesis]] = []
    for b, (row, samples) in enumerate(zip(batch.rows, decoded, strict=True)):
        speaker_prompt: Tensor | None = None
        group = []
        for sample, length, is_finished in zip(samples, lengths[b], finished[b], strict=True):
            if isinstance(sample, str):
                group.append(Hypothesis(row, sample, length, is_finished, prompt=prompts[b]))
                continue

            # One tensor for the group: judges of the voice embed it once.
            if speaker_prompt is None:
                speaker_prompt = batch.waveform[b, : int(batch.num_samples[b])].float().cpu()
            speech = sample
            if len(speaker_prompt):
                speech = replace(
                    sample, prompt=speaker_prompt, prompt_sample_rate_hz=batch.sample_rate_hz
                )
            group.append(Hypothesis(row, "", length, is_finished, speech))
        groups.append(group)
    return groups


def _prompt_texts(policy: Policy, batch: PromptBatch, context: Context) -> list[str]:
    """What the policy read of each prompt, where the row has hotwords; "" of others."""
    has_words = [bool(row.hotwords) for row in batch.rows]
    if not any(has_words):
        return [""] * len(batch)
    texts = policy.prompt_texts(context)
    return [text if has else "" for text, has in zip(texts, has_words, strict=True)]


@dataclass(frozen=True)
class RewardScorer:
    """Rewards the samples of one RL step, and the reference texts where losses take these as samples.

    Args:
        policy: that the samples are of.
        rewards: their weighted rewards.
        panel: the judges that these ask.
        step: number of the RL step, for error messages.
    """

    policy: Policy
    rewards: RewardMix
    panel: JudgePanel
    step: int

    def score(
        self,
        batch: PromptBatch,
        rollout: Rollout,
        context: Context,
        with_references: bool = False,
    ) -> ScoredRollout:
        """The samples of B prompts, decoded and rewarded."""
        device = rollout.tokens.device
        groups = hypotheses(self.policy, batch, rollout, context)
        scores = self.rewards.score(groups, self.panel, self.step).to(device)
        groups = self.panel.with_transcripts(groups)

        references: Tensor | None = None
        if with_references:
            references = self.reference_rewards(batch, context).to(device)
        return ScoredRollout(batch, context, rollout, scores, groups, references)

    def reference_rewards(self, batch: PromptBatch, context: Context) -> Tensor:
        """[B] as if the reference texts had been sampled; NaN for one that the policy never samples."""
        lengths = [self._target_length(context, i, row.text) for i, row in enumerate(batch.rows)]
        pairs = zip(batch.rows, lengths, strict=True)
        groups = [[Hypothesis(row, row.text, length or 0, finished=True)] for row, length in pairs]

        scores = self.rewards.score(groups, self.panel, self.step)
        is_text = torch.tensor([length is not None for length in lengths])
        return scores.total[:, 0].masked_fill(~(scores.valid[:, 0] & is_text), float("nan"))

    def _target_length(self, context: Context, number: int, text: str) -> int | None:
        """Tokens of a text with its stop token; None for one that the policy never samples."""
        try:
            targets = self.policy.targets(context.select([number]), [text])
        except ValueError:
            return None
        # Supervised training learns such tokens; here their log-probability is -inf.
        if not self.policy.may_sample(targets.tokens[targets.keep]).all():
            return None
        return int(targets.lengths)


def unrewarded(rollout: Rollout) -> Scores:
    """Scores of samples that nothing rewards: 0, and all of them valid."""
    zeros = torch.zeros(rollout.finished.shape, device=rollout.tokens.device)
    return Scores(zeros, torch.ones_like(rollout.finished), {})


def sampled_metrics(step: RLStep, is_rewarded: bool) -> dict[str, float]:
    """`rollout_metrics`, and `reward_metrics` where samples are rewarded."""
    metrics = rollout_metrics(step)
    return metrics | reward_metrics(step) if is_rewarded else metrics


def rollout_metrics(step: RLStep) -> dict[str, float]:
    """Metrics of lengths, and of what sample filters and dynamic sampling left out."""
    rollout = step.rollout
    metrics = {
        "used_share": float(step.advantages.used.float().mean()),
        "length/mean": float(rollout.lengths.float().mean()),
        "length/max": float(rollout.lengths.max()),
        "unfinished_share": 1 - float(rollout.finished.float().mean()),
    }
    metrics |= {f"dropped/{name}": float(count) for name, count in step.dropped.items()}
    return metrics | step.refill | data_metrics(step.batch)


def data_metrics(batch: PromptBatch) -> dict[str, float]:
    """How many draws of a batch were replaced because their audio is bad; nothing where none was.

    Example:
        >>> batch = PromptBatch(torch.zeros(0, 8), torch.zeros(0), 8000, (), bad_rows={"a.wav: holds no samples": 2})
        >>> data_metrics(batch)
        {'skipped_rows': 2.0}
    """
    if not batch.bad_rows:
        return {}
    return {"skipped_rows": float(sum(batch.bad_rows.values()))}


def reward_metrics(step: RLStep) -> dict[str, float]:
    """Metrics of the rewards and their components, and of groups that they do not tell apart."""
    scores = step.scores
    num_groups = len(step.batch)
    metrics = {
        "zero_variance_share": step.advantages.num_zero_variance / num_groups,
        "dropped_group_share": step.advantages.num_dropped / num_groups,
        "invalid_share": 1 - float(scores.valid.float().mean()),
    }
    # Of the samples that are left: each round of dynamic sampling adds up those that it replaced, too.
    for name, component in scores.parts.items():
        metrics[f"reward_failures/{name}"] = float(component.isnan().sum())

    components = {"": scores.total} | {
        f"{name}/": component for name, component in scores.parts.items()
    }
    for name, values in components.items():
        # A component of weight 0 may fail on a sample that is valid all the same.
        kept = values[scores.valid & ~values.isnan()]
        mean = float(kept.mean()) if len(kept) else float("nan")
        std = float(kept.std()) if len(kept) > 1 else 0.0
        metrics[f"reward/{name}mean"] = mean
        metrics[f"reward/{name}std"] = std
    return metrics
