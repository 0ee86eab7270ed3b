"""The half of an RL step that ends with rewards, shared by all algorithms that sample: encode, rollout, reward."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lightning_audiorl.algorithms.base import AudioRLModule
from lightning_audiorl.algorithms.evaluation import hypotheses
from lightning_audiorl.algorithms.ranks import agreed, total
from lightning_audiorl.algorithms.refill import Sampled, refilled
from lightning_audiorl.models.policy import Context, SampleKey
from lightning_audiorl.ops.join import join_rollouts
from lightning_audiorl.rewards import RewardMix
from lightning_audiorl.strategies import Part, module_parts
from lightning_audiorl.types import Decoding, PromptBatch, Rollout


class SamplingModule(AudioRLModule):
    """Samples G hypotheses per prompt and rewards them; a subclass learns from them.

    Args:
        rewards: the weighted rewards. A judge of theirs that the evaluation names too is held and placed once.
        group_size: G.
        decoding: of the rollout; temperature above 0.
        rollout_batch_size: prompts (whole groups) per sampling pass; 0 takes all at once.
        max_refills: rounds in which prompts whose samples teach nothing (all advantages 0) are replaced by further
            ones of the training mix (dynamic sampling, DAPO); what is left then stays. 0 is off.
        kwargs: see `AudioRLModule`.
    """

    def __init__(
        self,
        *args: Any,
        rewards: RewardMix,
        group_size: int = 8,
        decoding: Decoding | None = None,
        rollout_batch_size: int = 0,
        max_refills: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.rewards = rewards
        self.rewards.seat_judges(self.panel)
        self.group_size = group_size
        self.decoding = decoding or Decoding()
        self.rollout_batch_size = rollout_batch_size
        self.max_refills = max_refills
        if group_size < 2:
            raise ValueError(f"group_size must be at least 2, got {group_size}: an advantage compares samples")
        if self.decoding.temperature == 0:
            raise ValueError("decoding.temperature is 0: a greedy group has no variance; use 1.0")
        if min(rollout_batch_size, max_refills) < 0:
            raise ValueError("want batch sizes >= 0 and max_refills >= 0")

    @abstractmethod
    def teaches(self, sampled: Sampled) -> list[bool]:
        """Which groups have anything to learn from."""

    def parts(self) -> list[Part]:
        """As `AudioRLModule.parts`, and the models that rewards judge with."""
        for judge in self.reward_judges():
            judge.requires_grad_(False)
        return [*super().parts(), *module_parts("judge", self.reward_judges())]

    def reward_judges(self) -> Sequence[nn.Module]:
        """The models that rewards judge with, each once; the evaluation listens with the same instances."""
        return self.rewards.judges()

    def setup(self, stage: str) -> None:
        """As `AudioRLModule.setup`.

        Raises:
            ValueError: for a policy whose encoder trains: each clip is encoded once per step, without gradients.
        """
        finetune = getattr(self.policy, "finetune", None)
        if stage == "fit" and finetune is not None and finetune.encoder:
            raise ValueError(
                f"{type(self).__name__} gives the encoder no gradient; set policy.init_args.finetune.encoder to false"
            )
        datamodule = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and self.max_refills and not hasattr(datamodule, "refill"):
            raise ValueError(
                f"max_refills wants a data module with refill(step, attempt, num_prompts), such as AsrDataModule; got "
                f"{type(datamodule).__name__}"
            )
        super().setup(stage)

    def gather(self, batch: PromptBatch) -> tuple[Sampled, dict[str, float]]:
        """Encode, rollout and reward, with refills; and the figures of these."""
        strategy: Any = self.trainer.strategy
        with agreed(strategy, "the rollout"):
            sampled = self._sampled(batch)
        if not self.max_refills:
            return sampled, {}
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]

        def more(attempt: int, num_prompts: int) -> Sampled:
            return self._sampled(datamodule.refill(self.rl_step, attempt, num_prompts).to(self.device))

        sampled, figures = refilled(
            sampled,
            self.teaches,
            more,
            self.max_refills,
            lambda number: int(total(strategy, number, "max")),
            lambda: agreed(strategy, "a refill"),
            lambda: self.phase("rollout"),
        )
        self.context = sampled.context
        return sampled, figures

    def _sampled(self, batch: PromptBatch) -> Sampled:
        """Encode, rollout, reward."""
        with self.phase("encode"), torch.no_grad():
            context = self.policy.encode(batch)
        self.context = context
        with self.phase("rollout"):
            rollout = self._sample(batch, context, SampleKey(self.seed, self.rl_step))
        with self.phase("reward"):
            groups = hypotheses(self.policy, batch, rollout, context)
            scores = self.rewards.score(groups, self.panel).to(rollout.tokens.device)
            groups = self.panel.with_transcripts(groups)
        return Sampled(batch, context, rollout, scores, groups)

    def _sample(self, batch: PromptBatch, context: Context, key: SampleKey) -> Rollout:
        """Rollout in passes over prompts of neighbouring durations; draws are keyed, so passes change nothing."""
        size = self.rollout_batch_size or len(batch)
        order = sorted(range(len(batch)), key=lambda i: int(batch.num_samples[i]))
        pieces = [order[i : i + size] for i in range(0, len(order), size)]
        return join_rollouts(
            [
                (piece, self.policy.sample(context.select(piece), self.group_size, self.decoding, key))
                for piece in pieces
            ]
        )
