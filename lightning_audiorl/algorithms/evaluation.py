"""Evaluation of named sets under named decodings, shared by all algorithms."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from torch import Tensor

from lightning_audiorl.metrics import SetEvaluation
from lightning_audiorl.models.policy import Context, Policy, SampleKey
from lightning_audiorl.strategies.phases import Phase
from lightning_audiorl.types import Decoding, Hypothesis, PromptBatch, Rollout


@dataclass(frozen=True)
class EvalDecoding:
    """How a set is decoded for its figures.

    Args:
        decoding: greedy by default.
        num_samples: hypotheses per utterance; figures are over all of them.
    """

    decoding: Decoding = field(default_factory=lambda: Decoding(temperature=0.0))
    num_samples: int = 1


def hypotheses(policy: Policy, batch: PromptBatch, rollout: Rollout, context: Context) -> list[list[Hypothesis]]:
    """B groups of G decoded samples, as rewards and metrics take them.

    Speech gets the speaker prompt that it was made from, one tensor for its group.
    """
    groups: list[list[Hypothesis]] = []
    decoded = policy.decode(rollout, context)
    lengths, finished = rollout.lengths.tolist(), rollout.finished.tolist()
    for b, (row, samples) in enumerate(zip(batch.rows, decoded, strict=True)):
        prompt: Tensor | None = None
        group = []
        for said, length, stopped in zip(samples, lengths[b], finished[b], strict=True):
            if isinstance(said, str):
                group.append(Hypothesis(row, said, length, stopped))
                continue
            if prompt is None:
                prompt = batch.waveform[b, : int(batch.num_samples[b])].float().cpu()
            spoken = replace(said, prompt=prompt, prompt_sample_rate_hz=batch.sample_rate_hz) if len(prompt) else said
            group.append(Hypothesis(row, "", length, stopped, spoken))
        groups.append(group)
    return groups


class Evaluator:
    """Collects figures by set and decoding.

    The first decoding's figures are named ``<set>/<figure>``, the others' ``<set>/<decoding>/<figure>``.
    """

    def __init__(self, decodings: dict[str, EvalDecoding], set_names: Sequence[str], evaluation: SetEvaluation) -> None:
        self.decodings, self.set_names = decodings, list(set_names)
        self.metrics = {(name, decoding): evaluation.new() for name in set_names for decoding in decodings}

    def update(
        self,
        policy: Policy,
        batch: PromptBatch,
        context: Context,
        encode_s: float,
        set_index: int,
        seed: int,
        phase: Callable[[Phase], AbstractContextManager[None]],
    ) -> list[list[Hypothesis]]:
        """Decode one batch in the phases rollout and reward; returns the hypotheses of the first decoding."""
        name = self.set_names[set_index]
        first: list[list[Hypothesis]] | None = None
        for label, how in self.decodings.items():
            start = time.perf_counter()
            key = SampleKey(seed, 0, f"evaluate/{label}")
            with phase("rollout"):
                rollout = policy.sample(context, how.num_samples, how.decoding, key)
            with phase("reward"):
                groups = hypotheses(policy, batch, rollout, context)
                seconds = encode_s + time.perf_counter() - start
                self.metrics[name, label].update([h for group in groups for h in group], seconds)
            first = first or groups
        return first or []

    def compute(self) -> dict[str, dict[str, float]]:
        """Figures by "<set>" or "<set>/<decoding>"."""
        main = next(iter(self.decodings))
        return {
            name if label == main else f"{name}/{label}": {k: float(v) for k, v in metric.compute().items()}
            for (name, label), metric in self.metrics.items()
        }
