"""Several processes that share one model: FSDP2 through Lightning's ModelParallelStrategy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from lightning_audiorl.strategies.ddp import reduce_gradients
from lightning_audiorl.strategies.mixin import PhaseMixin
from lightning_audiorl.strategies.parts import NEEDED
from lightning_audiorl.strategies.phases import Phase


def shard_units(modules: list[nn.Module], users: dict[int, int]) -> list[nn.Module]:
    """The modules of which each is sharded by itself and entered only by its own forward: layers and embedding.

    The head stays whole, since ranks call it on different numbers of chunks; so does an embedding that shares the
    head's weight, and what is small (norms, convolutions).

    Args:
        modules: of one part.
        users: of `weight_users` over the whole policy.

    Example:
        >>> layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        >>> model = nn.Sequential(nn.Embedding(5, 2), layers, nn.LayerNorm(2))
        >>> [type(unit).__name__ for unit in shard_units([model], weight_users([model]))]
        ['Linear', 'Linear', 'Embedding']
    """
    found: list[nn.Module] = []
    for module in modules:
        found += module.modules()

    # A layer is what stands in a ModuleList; a list inside a layer (experts, say) is sharded with its layer.
    layers: list[nn.Module] = []
    for stack in found:
        if isinstance(stack, nn.ModuleList):
            layers += stack
    nested: set[int] = set()
    for layer in layers:
        nested.update(id(inner) for inner in layer.modules() if inner is not layer)
    outer = [layer for layer in layers if id(layer) not in nested and list(layer.parameters())]

    covered = nested | {id(layer) for layer in outer}
    embeddings: list[nn.Module] = []
    for other in found:
        if type(other) is not nn.Embedding or id(other) in covered:
            continue
        if all(users[id(parameter)] == 1 for parameter in other.parameters(recurse=False)):
            embeddings.append(other)
    return [*outer, *embeddings]


def weight_users(modules: list[nn.Module]) -> dict[int, int]:
    """How many distinct modules hold each parameter, by the parameter's id.

    Example:
        >>> embedding, head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        >>> head.weight = embedding.weight
        >>> weight_users([embedding, head]) == {id(head.weight): 2}
        True
    """
    # A module that stands in several parts is one module.
    distinct: dict[int, nn.Module] = {}
    for module in modules:
        distinct.update((id(inner), inner) for inner in module.modules())

    users: dict[int, int] = {}
    for inner in distinct.values():
        for parameter in inner._parameters.values():
            if parameter is not None:
                users[id(parameter)] = users.get(id(parameter), 0) + 1
    return users


class PhaseFSDP(PhaseMixin, ModelParallelStrategy):
    """``--trainer.strategy phase_fsdp``; see `PhaseMixin`.

    Layers and embedding are sharded over all ranks, the head is not. A phase without gradients gathers what it needs
    once and runs without a collective, so that ranks may sample for different lengths; the update gathers layer by
    layer. Checkpoints are single files, the same as without sharding.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"save_distributed_checkpoint": False} | kwargs)
        self._units: dict[str, list[nn.Module]] = {}

    @property
    def loss_scale(self) -> float:
        """The world size: FSDP2 averages over ranks."""
        return float(self.world_size)

    @property
    def lockstep(self) -> bool:
        """True: a layer is gathered from all ranks."""
        return True

    def setup_environment(self) -> None:
        """All ranks in one data-parallel group."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()

    def shard(self, parts: Mapping[str, list[nn.Module]]) -> None:
        """Shard the modules of a policy's parts, once; called by the module's ``configure_model``."""
        mesh = self.device_mesh["data_parallel"]
        users = weight_users(list(chain.from_iterable(parts.values())))
        for name, modules in parts.items():
            # A second fit, or a test after it, finds the modules sharded.
            self._units[name] = self._units.get(name) or shard_units(modules, users)
            for unit in self._units[name]:
                if not isinstance(unit, FSDPModule):
                    fully_shard(unit, mesh=mesh)

    def _move(self, names: Iterable[str], device: torch.device | str) -> None:
        """Sharded modules move by ``module.to``; assigning a DTensor's ``data`` would be ignored."""
        if self.root_device.type != "cpu":
            for name in names:
                for unit in self._units.get(name, []):
                    unit.to(device)

    def _sharded(self, names: Iterable[str]) -> list[FSDPModule]:
        """The sharded modules of the parts ``names``."""
        units = chain.from_iterable(self._units[name] for name in names)
        return [unit for unit in units if isinstance(unit, FSDPModule)]

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Everything that ``name`` needs is on the device inside, and whole where the phase has no gradients."""
        # In the update the optimizer steps over every shard, whichever phase its module is for.
        needed = [part for part in self._units if name in NEEDED[part] or name == "update"]
        if self._policy == "offload":
            self._move([part for part in self._units if part not in needed], "cpu")
            self._move(needed, self.root_device)

        gathered = [] if name == "update" else self._sharded(needed)
        with super().phase(name):
            for unit in gathered:
                unit.set_reshard_after_forward(False)
                # In the reference phase the first forward gathers, after the reference's values were written in.
                if name != "reference":
                    unit.unshard()
            try:
                yield
            finally:
                for unit in gathered:
                    unit.reshard()
                    unit.set_reshard_after_forward(True)

    def sync_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients that are whole; those of shards FSDP2 has averaged in the backward pass."""
        if self.world_size > 1:
            reduce_gradients([p for p in parameters if not isinstance(p, DTensor)], mean=True)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """With the values of parked tensors; gathering them takes every shard on its device."""
        self._move(self._units, self.root_device)
        return super().lightning_module_state_dict()

    def gather_weights(self) -> None:
        """Every rank gets the whole model as plain tensors on the CPU, for export; it no longer computes."""
        assert self.lightning_module is not None
        for module in self.lightning_module.modules():
            for name, parameter in list(module._parameters.items()):
                if isinstance(parameter, DTensor):
                    whole = parameter.full_tensor().detach().cpu()
                    module._parameters[name] = nn.Parameter(
                        whole, requires_grad=parameter.requires_grad
                    )
