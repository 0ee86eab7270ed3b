"""What a strategy places in a run: the policy's parts, the reference, encoded prompts, judges, and what losses read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_audiorl.losses import Loss
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.models.reference import Reference
from lightning_audiorl.strategies import NEEDED, Part, RLStrategy, module_parts
from lightning_audiorl.strategies.phases import Phase
from lightning_audiorl.types import PromptBatch


def policy_parts(policy: Policy) -> list[Part]:
    """The policy's own parts, what trains apart from what is frozen."""
    parts = []
    for name, modules in policy.parts().items():
        parts += module_parts(name, modules)
    return parts


def encode_phase(policy: Policy, batch: PromptBatch, strategy: RLStrategy) -> Phase:
    """The phase in which a batch is encoded.

    Where the policy has all of its encoder's outputs at hand that is "rollout": the encoder stays parked. Where ranks
    compute together all of them take the phase "encode".
    """
    is_placed = strategy.places_parts and not strategy.lockstep
    return "rollout" if is_placed and not policy.needs_encoder(batch) else "encode"


def run_parts(
    policy: Policy,
    reference: Reference | None,
    context_tensors: Callable[[], list[Tensor]],
    keep_context: bool,
    reward_judges: Sequence[nn.Module],
    evaluation_judges: Sequence[nn.Module],
    losses: Sequence[Loss[Any]],
) -> list[Part]:
    """The parts of a run.

    Args:
        policy: the model that trains.
        reference: the weights that training began from; None where no reference phase runs.
        context_tensors: of the encoded prompts of the step at hand.
        keep_context: whether these stay on the device for the whole step.
        reward_judges: whom the rewards ask.
        evaluation_judges: whom the evaluation asks; one that the rewards ask too is placed once.
        losses: of the run.
    """
    parts = policy_parts(policy)
    if reference is not None:
        parts.append(Part("reference", NEEDED["reference"], reference.tensors, frozen=True))

    # A judge of the evaluation alone is parked while rewards are given.
    held_out = [judge for judge in evaluation_judges if judge not in reward_judges]
    parts += module_parts("judge of the evaluation", held_out, "judge")
    parts.append(Part("context", NEEDED["context"], context_tensors, always=keep_context))

    # They are asked, never trained, whatever they were built with.
    for judge in reward_judges:
        judge.requires_grad_(False)
    parts += module_parts("judge", reward_judges)

    for loss in losses:
        for name, modules in loss.frozen_modules().items():
            parts += module_parts(name, modules)
    return parts
