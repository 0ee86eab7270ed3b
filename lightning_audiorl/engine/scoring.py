"""Passes over all samples of a step without gradients, in micro-batches: old and reference log-probs, hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_audiorl.losses.base import LossSettings, ReferenceStates
from lightning_audiorl.losses.step import MicroBatch
from lightning_audiorl.models.policy import SpeechPolicy
from lightning_audiorl.models.reference import Reference
from lightning_audiorl.strategies.phases import Phase
from lightning_audiorl.types import Rollout


@dataclass(frozen=True)
class StepScorer:
    """The engine's `losses.Scorer`.

    Args:
        settings: of the run's losses.
        rollout: all samples of the step.
        micro_batches: passes over them, anew at each call.
        reference: the weights that RL began from; None where no loss needs it.
        phase: enters a phase.
    """

    settings: LossSettings
    rollout: Rollout
    micro_batches: Callable[[], Iterator[MicroBatch]]
    reference: Reference | None
    phase: Callable[[Phase], AbstractContextManager[None]]

    def log_probs(self) -> Tensor:
        """[B, G, T] under the policy as it is."""
        with self.phase("update"):
            return self._log_probs()

    def reference_log_probs(self) -> Tensor:
        """[B, G, T] under the reference."""
        reference = self._required_reference()
        with self.phase("reference"), reference.swapped_in(self.settings.policy):
            return self._log_probs()

    @torch.no_grad()
    def reference_states(self) -> ReferenceStates:
        """Hidden states [B, G, T, D] of all samples under the reference, and its head."""
        policy = self.settings.policy
        if not isinstance(policy, SpeechPolicy):
            raise TypeError(
                f"reference states are those of a SpeechPolicy, not of {type(policy).__name__}"
            )

        reference = self._required_reference()
        with self.phase("reference"), reference.swapped_in(policy):
            hidden: Tensor | None = None
            for micro_batch in self.micro_batches():
                samples = micro_batch.samples
                states = policy.hidden(micro_batch.context, samples).unflatten(
                    0, samples.tokens.shape[:2]
                )
                if hidden is None:
                    hidden = states.new_zeros(*self.rollout.tokens.shape, states.shape[-1])
                hidden[micro_batch.index, :, : states.shape[2]] = states
            assert hidden is not None

            # A head that trains will have moved on when the KL is computed; a frozen one is shared.
            head = policy.output
            if any(parameter.requires_grad for parameter in head.parameters()):
                head = deepcopy(head).requires_grad_(False)
        return ReferenceStates(hidden, head)

    @torch.no_grad()
    def _log_probs(self) -> Tensor:
        log_probs = torch.zeros_like(self.rollout.log_probs)
        for micro_batch in self.micro_batches():
            samples = micro_batch.samples
            scored = self.settings.token_log_probs(micro_batch.context, samples)
            log_probs[micro_batch.index, :, : samples.tokens.shape[-1]] = scored.log_probs
        return log_probs

    def _required_reference(self) -> Reference:
        if self.reference is None:
            raise ValueError(
                "a loss asks for the reference, but says that it needs none (Loss.needs_reference)"
            )
        return self.reference
