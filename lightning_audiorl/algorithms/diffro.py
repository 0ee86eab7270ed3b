"""DiffRO (arXiv 2507.05911): the gradient of a Token2Text's reward, through relaxed speech codes, into the policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from lightning_audiorl import ops
from lightning_audiorl.algorithms.micro_batches import micro_batches
from lightning_audiorl.algorithms.ranks import agreed, equal_passes
from lightning_audiorl.algorithms.refill import Sampled
from lightning_audiorl.algorithms.relaxed import RelaxedModule, RelaxedStep
from lightning_audiorl.algorithms.step import Step, rollout_figures
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.models.policy import Context, SampleKey
from lightning_audiorl.rewards import RewardMix
from lightning_audiorl.types import Hypothesis, PromptBatch, Rollout, Scores


class DiffRO(RelaxedModule):
    """Sample, relax the samples position by position, and climb the reward's own gradient.

    The policy is teacher-forced on its own sample; each position's distribution becomes a point in the simplex
    (Gumbel-Softmax), embedded by Token2Text, whose log-likelihood of the text is the reward. Maximised is
    mean(R - beta * KL(policy || reference)) over the samples used, KL over the full vocabulary at each position. With
    beta 0 the gradient reaches the policy through the relaxed codes alone.

    Without ``rewards`` no waveform is made. With them they are logged, and filters may look at them; nothing else does.

    Args:
        rewards: of the waveforms; None for none.
        beta: weight of the KL; 0 runs no reference phase.
        num_updates: K inner updates per rollout.
        micro_batch_size: prompts (whole groups) per forward and backward pass; 0 is no limit.
        max_tokens: padded tokens per forward and backward pass; 0 is no limit.
        chunk_size: positions per call of the head; None keeps one chunk's logits small, 0 takes all at once.
        kwargs: see `RelaxedModule`, `SamplingModule` and `AudioRLModule`.
    """

    def __init__(
        self,
        *args: Any,
        rewards: RewardMix | None = None,
        beta: float = 0.1,
        num_updates: int = 1,
        micro_batch_size: int = 0,
        max_tokens: int = 0,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, rewards=rewards or _NoRewards(), **kwargs)
        self.beta, self.num_updates = beta, num_updates
        self.micro_batch_size, self.max_tokens, self.chunk_size = micro_batch_size, max_tokens, chunk_size
        self.last_step: Step | None = None
        if num_updates < 1 or beta < 0 or min(micro_batch_size, max_tokens) < 0:
            raise ValueError("want num_updates >= 1, beta >= 0, batch sizes >= 0")
        wanting = [type(rule).__name__ for rule in self.diffro_filters if rule.needs_rewards]
        if wanting and not self.rewarded:
            raise ValueError(f"DiffRO.diffro_filters: {wanting[0]} looks at rewards; set rewards, or leave it out")

    @property
    def rewarded(self) -> bool:
        """Whether waveforms are made and rewarded."""
        return not isinstance(self.rewards, _NoRewards)

    @property
    def needs_reference(self) -> bool:
        """Whether there is a KL penalty."""
        return self.beta > 0

    def training_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """One RL step: sample, choose, `relaxed_backward`, step."""
        self.last_step = None  # its context need not be held beside the new one
        with self.policy.evaluating():
            sampled, refill = self.gather(batch)
            with agreed(self.trainer.strategy, "scoring"):
                advantages = self._advantages(sampled)
                used, dropped = self.select(self.candidates(sampled, advantages))
                reference = self.reference_states(sampled.context, sampled.rollout)
            relaxed = RelaxedStep(sampled.batch.rows, used, reference, dropped)
            metrics = self._update(relaxed, sampled)
        dropped_by = {f"diffro/{name}": count for name, count in dropped.items()}
        step = Step(
            **vars(sampled),
            advantages=advantages,
            old_log_probs=None,
            reference_log_probs=None,
            weights=None,
            dropped=dropped_by,
            refill=refill,
        )
        self.last_step = step if self.rewarded else None
        metrics |= self._figures(step) | {"used_share": float(used.float().mean())} | refill
        reward = metrics["reward/diffro/total"]
        self.log_dict({"reward": reward, "kl": metrics.get("kl", 0.0)}, prog_bar=True, logger=False, batch_size=1)
        self.finish_step(metrics, weight=len(batch))

    def _figures(self, step: Step) -> dict[str, float]:
        figures = rollout_figures(step)
        if not self.rewarded:
            of_rewards = ("reward/", "zero_variance", "dropped_group", "invalid", "dropped/diffro/invalid")
            figures = {name: value for name, value in figures.items() if not name.startswith(of_rewards)}
        return figures | {"stop_rate": 1 - figures["unfinished_share"]}

    def teaches(self, sampled: Sampled) -> list[bool]:
        """Groups of which any sample passes the filters."""
        used, _ = self.select(self.candidates(sampled, self._advantages(sampled)))
        return [bool(group.any()) for group in used]

    def _advantages(self, sampled: Sampled) -> ops.Advantages:
        return ops.group_advantages(sampled.scores.total, sampled.scores.valid)

    def _sampled(self, batch: PromptBatch) -> Sampled:
        if self.rewarded:
            return super()._sampled(batch)
        self.differentiable.check(batch.rows)
        with self.phase("encode"), torch.no_grad():
            self.context = context = self.policy.encode(batch)
        with self.phase("rollout"):
            rollout = self._sample(batch, context, SampleKey(self.seed, self.rl_step))
        shape = rollout.finished.shape
        zeros = torch.zeros(shape, device=rollout.tokens.device)
        scores = Scores(zeros, torch.ones_like(rollout.finished), {})
        return Sampled(batch, context, rollout, scores, [[] for _ in batch.rows])

    def _parts(self, context: Context, rollout: Rollout) -> Iterator[tuple[list[int], bool, Context, Rollout]]:
        longest = rollout.lengths.amax(-1).tolist()
        pieces = micro_batches(context.prompt_lengths, longest, self.group_size, self.max_tokens, self.micro_batch_size)
        for index, counts in equal_passes(self.trainer.strategy, pieces):
            yield index, counts, context.select(index), rollout.select(index)

    def _update(self, relaxed: RelaxedStep, sampled: Sampled) -> dict[str, float]:
        """K updates on one rollout; the figures are those of the last."""
        figures: dict[str, float] = {}
        skipped = 0.0
        for _ in range(self.num_updates):
            with self.phase("update"):
                figures = self.relaxed_backward(relaxed, sampled.context, sampled.rollout, self.beta)
                figures |= self.optimizer_step_clipped()
            skipped += figures["skipped_updates"]
        return figures | {"skipped_updates": skipped}


class _NoRewards(RewardMix):
    """Nobody judges."""

    def __init__(self) -> None:
        self.rewards = []

    def score(self, groups: Sequence[Sequence[Hypothesis]], panel: JudgePanel | None = None) -> Scores:
        raise NotImplementedError("there are no rewards")
