"""What a loss learns from: the scored samples of one RL step, and the micro-batches that they pass in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, overload

from torch import Tensor

from lightning_audiorl import ops
from lightning_audiorl.fields import Batched, PerPrompt, Shape
from lightning_audiorl.models.policy import Context, SampleKey
from lightning_audiorl.types import Hypothesis, PromptBatch, Rollout, Scores, Utterance


@dataclass(frozen=True)
class ScoredRollout(Batched):
    """B prompts with their G samples and the rewards of these: what the phases encode, rollout and reward leave.

    Dynamic sampling selects from it by prompt and joins it with others.

    Args:
        batch: B prompts.
        context: the encoded prompts.
        rollout: tokens [B, G, T] and their log-probs.
        scores: rewards [B, G]; zeros, all valid, where nothing is rewarded.
        groups: B groups of G decoded samples; empty groups where nothing is rewarded.
        reference_rewards: [B], of the reference texts, NaN of a row without one; None where no loss asks.
    """

    batch: PromptBatch
    context: Context
    rollout: Rollout
    scores: Scores
    groups: PerPrompt[list[list[Hypothesis]]]
    reference_rewards: Annotated[Tensor | None, Shape("B")] = None


@dataclass(frozen=True)
class RLStep:
    """Everything that losses may look at in one RL step.

    Args:
        samples: the scored rollout of B prompts, G samples each.
        advantages: [B, G] of the samples, and which of them are used.
        dropped: number of samples that sample filters took out, by the filter's name.
        key: seed and RL step; keys every further draw.
        num_steps: RL steps of the run, for schedules.
        refill: metrics of dynamic sampling; empty where it is off.
    """

    samples: ScoredRollout
    advantages: ops.Advantages
    dropped: dict[str, int]
    key: SampleKey
    num_steps: int
    refill: dict[str, float] = field(default_factory=dict)

    @property
    def batch(self) -> PromptBatch:
        """The B prompts."""
        return self.samples.batch

    @property
    def context(self) -> Context:
        """The encoded prompts."""
        return self.samples.context

    @property
    def rollout(self) -> Rollout:
        """Tokens [B, G, T] of the samples."""
        return self.samples.rollout

    @property
    def scores(self) -> Scores:
        """Rewards [B, G] of the samples."""
        return self.samples.scores

    @property
    def groups(self) -> list[list[Hypothesis]]:
        """B groups of G decoded samples."""
        return self.samples.groups


@dataclass(frozen=True)
class MicroBatch:
    """Whole groups that pass forward and backward together.

    Args:
        index: the numbers of its prompts within the step's batch.
        rows: the manifest rows of these prompts.
        context: their encoded prompts.
        rollout: their samples; None in supervised training.
        weight: 1; 0 for a pass that only keeps ranks in lockstep.
    """

    index: list[int]
    rows: tuple[Utterance, ...]
    context: Context
    rollout: Rollout | None
    weight: float = 1.0

    @property
    def samples(self) -> Rollout:
        """The samples of a micro-batch that has some.

        Raises:
            ValueError: in supervised training, where nothing was sampled.
        """
        if self.rollout is None:
            raise ValueError("this loss learns from samples; supervised training has none")
        return self.rollout


@overload
def group_part(values: Tensor, micro_batch: MicroBatch) -> Tensor: ...
@overload
def group_part(values: None, micro_batch: MicroBatch) -> None: ...
def group_part(values: Tensor | None, micro_batch: MicroBatch) -> Tensor | None:
    """The part of [B, G, T, ...] values that belongs to a micro-batch, cut to its longest completion; None stays."""
    if values is None:
        return None
    width = micro_batch.samples.tokens.shape[-1]
    return values[micro_batch.index][:, :, :width]
