"""What an algorithm is: a `Loss`. The engine runs the stages, micro-batches and ranks around it.

A loss knows neither rank nor phase nor strategy. It says once per RL step what it learns from (`Loss.prepare`), and for
each micro-batch which scalar goes backward (`Loss.compute`). Everything else is the engine's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Generic, Protocol, TypeVar

from torch import Tensor, nn

from lightning_audiorl import ops
from lightning_audiorl.checks import check_count
from lightning_audiorl.fields import Checked, Shape
from lightning_audiorl.losses.advantages import GroupAdvantages
from lightning_audiorl.losses.step import MicroBatch, RLStep
from lightning_audiorl.models.policy import Context, Policy
from lightning_audiorl.types import Decoding, Rollout, Utterance


@dataclass(frozen=True)
class LossSettings:
    """What a loss knows of the run that it belongs to.

    Args:
        policy: the model that trains.
        decoding: how samples are drawn; scores are taken at its temperature.
        num_updates: K inner updates per rollout.
        chunk_size: positions per call of the head; None keeps one chunk's logits small, 0 takes all at once.
        algorithm: name of the LightningModule, for error messages.
    """

    policy: Policy
    decoding: Decoding
    num_updates: int = 1
    chunk_size: int | None = None
    algorithm: str = "RLModule"

    def __post_init__(self) -> None:
        check_count(f"{self.algorithm}.num_updates", self.num_updates, at_least=1)
        if self.chunk_size is not None:
            check_count(f"{self.algorithm}.chunk_size", self.chunk_size)

    def token_log_probs(
        self, context: Context, rollout: Rollout, with_entropy: bool = False
    ) -> ops.TokenLogProbs:
        """Log-probs [B, G, T] of a rollout's tokens under the policy, as the sampler draws them."""
        hidden = self.policy.hidden(context, rollout)
        support = None if rollout.support is None else rollout.support.flatten(0, 1)
        scored = ops.token_log_probs(
            hidden,
            self.policy.head,
            rollout.tokens.flatten(0, 1),
            rollout.keep.flatten(0, 1),
            self.decoding.temperature,
            support,
            self.chunk_size,
            with_entropy,
            learns_entropy=False,
        )

        shape = rollout.tokens.shape
        entropy = scored.entropy
        if entropy is not None:
            entropy = entropy.view(shape)
        return ops.TokenLogProbs(scored.log_probs.view(shape), entropy)


@dataclass(frozen=True)
class ReferenceStates(Checked):
    """What a full-vocabulary KL asks of the reference; its logits are made of it a chunk at a time.

    Args:
        hidden: [B, G, T, D] without a graph.
        head: [n, D] -> [n, V] logits, forbidden tokens among them.
    """

    hidden: Annotated[Tensor, Shape("B G T D")]
    head: ops.Head


class Scorer(Protocol):
    """Passes over all samples of a step without gradients; the engine cuts them into micro-batches."""

    def log_probs(self) -> Tensor:
        """[B, G, T] under the policy as it is."""

    def reference_log_probs(self) -> Tensor:
        """[B, G, T] under the reference."""

    def reference_states(self) -> ReferenceStates:
        """Hidden states of all samples under the reference, and its head."""


@dataclass(frozen=True, kw_only=True)
class Prepared(Checked):
    """What a loss took from a step before its first update; a loss that needs more derives from it.

    The engine refuses a mask of another shape or dtype, and a count that is negative or not finite.

    Args:
        used: [B, G] bool, the samples that enter the loss. A micro-batch without any is not run. None uses all.
        count: this rank's share of what the loss is divided by, samples or tokens. None where only the passes
            themselves tell: the gradients are then divided by the sum that `Loss.count_name` names.
        metrics: of this rank, to be logged.
    """

    used: Annotated[Tensor | None, Shape("B G")] = None
    count: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


PreparedT = TypeVar("PreparedT", bound=Prepared)


class Loss(ABC, Generic[PreparedT]):
    """What is minimised. One class per algorithm.

    Example: a small one, REINFORCE without a baseline, ``RLModule(policy, losses=[Reinforce()], rewards=..., ...)``.

        class Reinforce(Loss[Prepared]):
            name = "reinforce"
            needs_rewards = "reinforce"
            sum_names = ("loss",)

            def prepare(self, step, scorer):
                valid = step.scores.valid
                # A sample whose reward failed may share a micro-batch with others: it must add nothing there.
                self.rewards = step.scores.total.masked_fill(~valid, 0.0)
                return Prepared(used=valid, count=float(valid.sum()))

            def compute(self, prepared, micro_batch, divisor):
                log_probs = self.settings.token_log_probs(micro_batch.context, micro_batch.samples).log_probs
                per_sample = ops.masked_sum(log_probs, micro_batch.samples.keep, dim=-1)
                loss = -(self.rewards[micro_batch.index] * per_sample).sum() / divisor
                return loss, {"loss": loss.detach()}
    """

    #: Stands before the log keys of a loss that is not the first of its run.
    name: ClassVar[str]

    #: The sums that `compute` returns; named here, since every rank adds up the same ones even if it ran no pass.
    sum_names: tuple[str, ...] = ("loss",)

    #: The sum that gradients are divided by where `Prepared.count` is None.
    count_name: ClassVar[str] = "tokens"

    #: Metrics on the progress bar: shown name -> log key.
    progress_bar: ClassVar[Mapping[str, str]] = {"loss": "loss"}

    #: How rewards become advantages; the first loss that has an opinion decides for the run.
    advantages: GroupAdvantages | None = None

    settings: LossSettings

    def bind(self, settings: LossSettings) -> None:
        """Learn which run the loss belongs to; called once, when the run's module is made. Overrides call it, too.

        Raises:
            ValueError: where the policy or the decoding does not fit.
        """
        self.settings = settings

    @property
    def needs_reference(self) -> bool:
        """Whether `prepare` asks the scorer for the reference."""
        return False

    @property
    def needs_rewards(self) -> str | None:
        """What of the loss looks at rewards, for an error message; None where nothing does."""
        return None

    @property
    def passes_vary(self) -> str | None:
        """The setting that makes the number of forward passes differ between ranks; None where all run the same."""
        return None

    def frozen_modules(self) -> Mapping[str, Sequence[nn.Module]]:
        """Models that the loss reads and never trains, by the part that a strategy places them as."""
        return {}

    def check_run(self) -> None:
        """See that the loss and the policy's weights belong together; called when training begins.

        Raises:
            ValueError: saying what does not fit.
        """

    def check_rows(self, rows: Sequence[Utterance]) -> None:
        """See that the loss can learn from ``rows``, before anything is sampled for them.

        Raises:
            ValueError: naming the first row that it cannot.
        """

    def has_signal(self, step: RLStep) -> list[bool]:
        """Which of the B groups have anything to learn from; dynamic sampling replaces the others."""
        return [True] * len(step.batch)

    @abstractmethod
    def prepare(self, step: RLStep, scorer: Scorer) -> PreparedT:
        """Take from the step what all of its updates need, under the weights of before the first.

        Args:
            step: the scored samples, [B, G].
            scorer: old and reference log-probs of all of them, each a pass over the step.
        """

    @abstractmethod
    def compute(
        self, prepared: PreparedT, micro_batch: MicroBatch, divisor: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one micro-batch.

        Args:
            prepared: of `prepare`.
            micro_batch: whole groups of the step.
            divisor: the step's count over all ranks and micro-batches, at least 1; 1 where it is not known before.

        Returns:
            A scalar with its graph, and 0-d sums by the names of ``sum_names``, without. Where no sample of the
            micro-batch is used (ranks in lockstep pass all the same), 0 times something of the policy's.
        """

    def metrics(
        self, prepared: PreparedT, sums: dict[str, float], divisor: float
    ) -> dict[str, float]:
        """Logged metrics, from the sums over all ranks and micro-batches; ``divisor`` is 0 where nothing was used."""
        return sums
