"""A policy made of its configuration alone, on tensors that have shapes and storages but no values."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from lightning_audiorl.commands.plan.meter import Meter
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.outline import outlines


def build_skeleton(make_policy: Callable[[], Policy], meter: Meter) -> CachedPromptPolicy:
    """The policy that ``make_policy`` makes, from ``config.json`` alone.

    Args:
        make_policy: calls the policy's constructor.
        meter: under which the policy will run; it does not count the policy's own tensors.

    Raises:
        ValueError: for a policy whose phases the planner cannot trace.
        FileNotFoundError: for a folder without ``config.json``.
    """
    with outlines():
        policy = make_policy()
    if not isinstance(policy, CachedPromptPolicy):
        raise ValueError(
            f"plan: a {type(policy).__name__} is no CachedPromptPolicy, whose rollout and update the planner traces"
        )

    _forget_values(policy, meter)
    meter.leave_out([*policy.parameters(), *policy.buffers()])
    return policy.eval()


def _forget_values(policy: nn.Module, meter: Meter) -> None:
    """Put tensors of ``meter`` in the place of every parameter and buffer, wherever they are now."""
    # By id: embedding and head may share a weight.
    parameters: dict[int, nn.Parameter] = {}
    buffers: dict[int, Tensor] = {}
    for module in policy.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if id(parameter) not in parameters:
                parameters[id(parameter)] = nn.Parameter(
                    meter.without_values(parameter), parameter.requires_grad
                )
            setattr(module, name, parameters[id(parameter)])
        for name, buffer in list(module.named_buffers(recurse=False, remove_duplicate=False)):
            if id(buffer) not in buffers:
                buffers[id(buffer)] = meter.without_values(buffer)
            setattr(module, name, buffers[id(buffer)])


def unique_bytes(tensors: list[Tensor]) -> int:
    """Bytes of the distinct storages behind ``tensors``.

    Example:
        >>> import torch
        >>> whole = torch.zeros(10)
        >>> unique_bytes([whole, whole[:5]])
        40
    """
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())
