"""Decoding without training: each batch encoded once, then sampled under every named decoding."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain

from lightning import LightningModule

from lightning_audiorl.engine.evaluator import EvalDecoding
from lightning_audiorl.engine.reference_texts import reference_log_probs
from lightning_audiorl.engine.rollout import hypotheses
from lightning_audiorl.engine.run_parts import encode_phase, policy_parts
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.metrics.speech import Judges
from lightning_audiorl.models.policy import Policy, SampleKey
from lightning_audiorl.strategies import Part, module_parts, rl_strategy
from lightning_audiorl.strategies.phases import Phase, PhaseClock
from lightning_audiorl.types import Hypothesis, PromptBatch, Rollout


@dataclass(frozen=True)
class Decoded:
    """One hypothesis, and how the policy came to it.

    Args:
        hypothesis: with its row.
        decoding: name of the decoding.
        sample: number among the decoding's samples of this row.
        log_prob: sum over its tokens, in nats, under the distribution it was drawn from (greedy: at temperature 1).
    """

    hypothesis: Hypothesis
    decoding: str
    sample: int
    log_prob: float


@dataclass(frozen=True)
class DecodedBatch:
    """What `Prediction` makes of B rows.

    Args:
        groups: B lists of hypotheses, decoding by decoding.
        seconds: wall clock of the batch.
        panel: what the judges answered about the hypotheses.
        reference_log_probs: B, of the rows' texts, NaN of one that the policy cannot write; None where not measured.
    """

    groups: list[list[Decoded]]
    seconds: float
    panel: JudgePanel
    reference_log_probs: list[float] | None = None


class Prediction(LightningModule):
    """A policy for ``Trainer.predict``: ``predict_step`` runs the phases encode, rollout and reward.

    Draws are keyed by (seed, decoding's name, row id, sample number): a hypothesis does not depend on its batch. A
    strategy places the policy's parts as in training.

    Args:
        policy: the model that decodes.
        decodings: by name.
        seed: keys every draw.
        judges: of a policy that speaks; they are asked in the reward phase.
        reference_logprob: whether the rows' texts are measured, too.
    """

    def __init__(
        self,
        policy: Policy,
        decodings: Mapping[str, EvalDecoding],
        seed: int = 0,
        judges: Judges | None = None,
        reference_logprob: bool = False,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.decodings = dict(decodings)
        self.seed = seed
        self.judges = judges or Judges()
        self.reference_logprob = reference_logprob
        self.clock = PhaseClock()

    def phase(self, name: Phase) -> AbstractContextManager[None]:
        """Context manager of a phase; see `PhaseClock`."""
        return self.clock.enter(name, rl_strategy(self.trainer.strategy))

    def configure_model(self) -> None:
        """Shard the policy where the strategy shards."""
        rl_strategy(self.trainer.strategy).shard(self.policy.parts())

    def parts(self) -> list[Part]:
        """What the strategy places."""
        return [*policy_parts(self.policy), *module_parts("judge", self.judges.present())]

    def predict_step(
        self, batch: PromptBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> DecodedBatch:
        """Decode one batch under every decoding.

        Raises:
            ValueError: where a log-prob is not finite, naming the row; for a policy that speaks to nobody.
            JudgeError: for a policy that writes, where there are judges.
        """
        start = time.perf_counter()
        groups: list[list[Decoded]] = [[] for _ in batch.rows]
        panel = JudgePanel()

        with self.policy.evaluating():
            strategy = rl_strategy(self.trainer.strategy)
            with self.phase(encode_phase(self.policy, batch, strategy)):
                context = self.policy.encode(batch)

            # All decodings first, then the reward phase once: a strategy that parks models moves each of them once.
            rollouts = {}
            with self.phase("rollout"):
                for name, how in self.decodings.items():
                    key = SampleKey(self.seed, 0, f"predict/{name}")
                    rollouts[name] = self.policy.sample(context, how.num_samples, how.decoding, key)
                references = None
                if self.reference_logprob and not self.policy.speaks:
                    references = reference_log_probs(self.policy, context, batch.texts)

            with self.phase("reward"):
                for name, rollout in rollouts.items():
                    of_name = hypotheses(self.policy, batch, rollout, context)
                    self._ask(list(chain.from_iterable(of_name)), panel)
                    for group, samples, log_probs in zip(
                        groups, of_name, _log_probs(rollout), strict=True
                    ):
                        group += [_decoded(h, name, i, log_probs[i]) for i, h in enumerate(samples)]

        return DecodedBatch(groups, time.perf_counter() - start, panel, references)

    def _ask(self, samples: list[Hypothesis], panel: JudgePanel) -> None:
        """Have the panel hold every judge's answer about every sample."""
        judges = self.judges
        if (
            judges.judge is None
            and judges.held_out_judge is None
            and any(s.speech is not None for s in samples)
        ):
            raise ValueError(
                f"{type(self.policy).__name__} speaks, and nobody listens; name a judge (`speech.judge` of `audiorl "
                "predict`)"
            )
        for judge in judges.present():
            panel.ask(judge, samples)


def _log_probs(rollout: Rollout) -> list[list[float]]:
    """[B, G] sums over kept tokens."""
    sums: list[list[float]] = (
        rollout.log_probs.double().masked_fill(~rollout.keep, 0.0).sum(-1).tolist()
    )
    return sums


def _decoded(hypothesis: Hypothesis, decoding: str, sample: int, log_prob: float) -> Decoded:
    if not math.isfinite(log_prob):
        raise ValueError(
            f"row {hypothesis.row.id!r}: sample {sample} of decoding {decoding!r} has log-prob {log_prob}; look at the "
            "model's weights, and at the precision it runs in"
        )
    return Decoded(hypothesis, decoding, sample, log_prob)
