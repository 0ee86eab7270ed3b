"""What the training loop asks of a strategy, and an adapter that answers for every other strategy of Lightning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

import torch
from lightning.pytorch.strategies import ParallelStrategy, Strategy
from torch import Tensor, nn

from lightning_audiorl.strategies.ledger import Ledger
from lightning_audiorl.strategies.mixin import PhaseMixin
from lightning_audiorl.strategies.phases import Phase, PhaseHook

#: How one number of each rank becomes one number of all of them.
ReduceOp = Literal["sum", "max"]


class RLStrategy(PhaseHook, Protocol):
    """All that the loop asks of a strategy; `rl_strategy` makes one of any strategy of Lightning.

    A strategy decides where tensors live and how processes work together, never what is computed. It is told of each
    phase by ``phase(name)``, a context manager.
    """

    @property
    def root_device(self) -> torch.device:
        """The device on which this process computes."""

    @property
    def world_size(self) -> int:
        """Number of processes (ranks)."""

    @property
    def loss_scale(self) -> float:
        """What a loss is multiplied by so that `sync_gradients` leaves the sum over ranks: 1, or the world size."""

    @property
    def lockstep(self) -> bool:
        """Whether ranks compute layer by layer together (FSDP), so that all must take equally many passes."""

    @property
    def places_parts(self) -> bool:
        """Whether the parts of a module are brought to the device phase by phase."""

    @property
    def ledger(self) -> Ledger | None:
        """Bytes on the device by phase and part; None where the strategy places nothing."""

    def shard(self, parts: Mapping[str, list[nn.Module]]) -> None:
        """Split the modules of a policy's parts, by name, over the ranks; nothing where each rank holds them whole."""

    def sync_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make each gradient the sum over ranks."""

    def gather_weights(self) -> None:
        """Every rank gets the whole model as plain tensors, for export; a sharded model no longer computes."""

    def reduce(self, tensor: Tensor, *, reduce_op: ReduceOp) -> Tensor:
        """One number per rank to their sum or maximum; Lightning's method of that name. ``tensor`` is written to."""


class PlainStrategy:
    """Any strategy of Lightning as an `RLStrategy`: the module stays where Lightning puts it, phases do nothing.

    Args:
        strategy: the one that is wrapped.

    Example:
        >>> from lightning.pytorch.strategies import SingleDeviceStrategy
        >>> plain = PlainStrategy(SingleDeviceStrategy("cpu"))
        >>> plain.world_size, plain.loss_scale, plain.lockstep, plain.places_parts, plain.ledger
        (1, 1.0, False, False, None)
    """

    loss_scale = 1.0
    lockstep = False
    places_parts = False
    ledger = None

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy

    @property
    def root_device(self) -> torch.device:
        """The device on which the wrapped strategy computes."""
        return self.strategy.root_device

    @property
    def world_size(self) -> int:
        """Number of processes; 1 where the wrapped strategy knows of no others."""
        return self.strategy.world_size if isinstance(self.strategy, ParallelStrategy) else 1

    def phase(self, name: Phase) -> AbstractContextManager[None]:
        """Does nothing: everything is on the device at any time."""
        return nullcontext()

    def shard(self, parts: Mapping[str, list[nn.Module]]) -> None:
        """Does nothing."""

    def sync_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Does nothing."""

    def gather_weights(self) -> None:
        """Does nothing."""

    def reduce(self, tensor: Tensor, *, reduce_op: ReduceOp) -> Tensor:
        """As the wrapped strategy reduces."""
        return self.strategy.reduce(tensor, reduce_op=reduce_op)


def rl_strategy(strategy: Strategy) -> RLStrategy:
    """The strategy itself where it is one of this package, else a `PlainStrategy` around it.

    Example:
        >>> from lightning.pytorch.strategies import SingleDeviceStrategy
        >>> type(rl_strategy(SingleDeviceStrategy("cpu"))).__name__
        'PlainStrategy'
    """
    return strategy if isinstance(strategy, PhaseMixin) else PlainStrategy(strategy)
