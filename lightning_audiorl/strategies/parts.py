"""What there is to place: the parts of a step, and the one table of the phases that need each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from lightning_audiorl.strategies.phases import Phase

#: Part of a policy -> the phases in which a forward or backward pass enters it.
NEEDED: dict[str, frozenset[Phase]] = {
    "encoder": frozenset({"encode"}),
    "projector": frozenset({"rollout", "reference", "update"}),
    "lm": frozenset({"rollout", "reference", "update"}),
    "reference": frozenset({"reference"}),
    "optimizer": frozenset({"update"}),
    "context": frozenset({"rollout", "reference", "update"}),
    "codec": frozenset({"encode", "reward"}),
    "judge": frozenset({"reward"}),
    "token2text": frozenset({"update"}),
}
_UPDATE: frozenset[Phase] = frozenset({"update"})


@dataclass(frozen=True)
class Part:
    """Tensors that are needed in the same phases and move together.

    Args:
        name: as the ledger shows it.
        phases: in which the tensors must be on the device.
        tensors: the tensors it has now (an optimizer has none before its first step).
        frozen: never written to, so a copy in host memory stays valid while the tensors are on the device.
        always: stays on the device whatever the policy says.
    """

    name: str
    phases: frozenset[Phase]
    tensors: Callable[[], Iterable[Tensor]]
    frozen: bool = False
    always: bool = False


def module_parts(name: str, modules: Iterable[nn.Module], kind: str | None = None) -> list[Part]:
    """The frozen and the trainable tensors of some modules, as two parts.

    What trains is not needed in the reference phase, where the reference's values stand in its place; it is needed in
    the update, whichever phase its module is for.

    Args:
        name: of the part.
        modules: that hold the tensors, parameters and buffers alike.
        kind: entry of `NEEDED`; by default ``name``.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> layer.bias.requires_grad_(False).numel()
        2
        >>> for part in module_parts("lm", [layer]):
        ...     print(part.name, sorted(part.phases), [list(tensor.shape) for tensor in part.tensors()])
        lm ['reference', 'rollout', 'update'] [[2]]
        lm (trainable) ['rollout', 'update'] [[2, 2]]
    """
    needed = NEEDED[kind or name]

    # By id: a parameter that two modules share is placed once.
    frozen: dict[int, Tensor] = {}
    trainable: dict[int, Tensor] = {}
    for module in modules:
        for parameter in module.parameters():
            group = trainable if parameter.requires_grad else frozen
            group[id(parameter)] = parameter
        for buffer in module.buffers():
            frozen[id(buffer)] = buffer

    parts = []
    if frozen:
        held = list(frozen.values())
        parts.append(
            Part(name, needed | _UPDATE if trainable else needed, lambda: held, frozen=True)
        )
    if trainable:
        trained = list(trainable.values())
        parts.append(
            Part(f"{name} (trainable)", needed - NEEDED["reference"] | _UPDATE, lambda: trained)
        )
    return parts
