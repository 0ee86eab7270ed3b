"""What the three strategies share: phases, the placement behind them, and state dicts in spite of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from lightning import Trainer
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_audiorl.checks import check_number
from lightning_audiorl.strategies.ledger import Ledger
from lightning_audiorl.strategies.parts import NEEDED, Part
from lightning_audiorl.strategies.phases import Phase
from lightning_audiorl.strategies.placement import Placement, PlacementPolicy


@runtime_checkable
class PlacedModule(Protocol):
    """A LightningModule that says what there is to place."""

    def parts(self) -> list[Part]:
        """Every part of a step that the module holds, once."""


class PhaseMixin(Strategy):
    """What an `RLStrategy` is asked for; stands before a Lightning strategy among the bases.

    The LightningModule says what there is to place with ``parts() -> list[Part]``; the strategy adds the optimizer.

    Args:
        placement: "offload" (the default), "resident" or "auto"; see `Placement`.
        budget_gb: for "auto": GiB that parts may take on the device.
        kwargs: of the Lightning strategy.
    """

    #: Number of processes; every strategy of Lightning has it, their base class does not.
    world_size: int

    def __init__(
        self, placement: PlacementPolicy = "offload", budget_gb: float | None = None, **kwargs: Any
    ) -> None:
        budget_bytes = _bytes(budget_gb)
        # A bad setting fails here, not in the run.
        Placement(placement, torch.device("cpu"), budget_bytes)

        super().__init__(**kwargs)
        self._policy: PlacementPolicy = placement
        self._budget_bytes = budget_bytes
        self.placement: Placement | None = None
        self.ledger: Ledger | None = None

    # --- what the loop asks; see `RLStrategy`

    @property
    def loss_scale(self) -> float:
        """What a loss is multiplied by so that `sync_gradients` leaves the sum over ranks."""
        return 1.0

    @property
    def lockstep(self) -> bool:
        """Whether ranks compute layer by layer together."""
        return False

    @property
    def places_parts(self) -> bool:
        """True: that is what these strategies are for."""
        return True

    def shard(self, parts: Mapping[str, list[nn.Module]]) -> None:
        """Split the modules of a policy's parts over the ranks; here each rank holds them whole."""

    def gather_weights(self) -> None:
        """Every rank gets the whole model, for export; here each has it."""

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Everything that ``name`` needs is on the device inside."""
        if self.placement is None or self.ledger is None:
            yield
            return
        self.placement.enter(name)
        with self.ledger.phase(name):
            yield

    def sync_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make each gradient the sum over ranks."""

    # --- Lightning's hooks

    def setup(self, trainer: Trainer) -> None:
        """As Lightning does it; then the optimizer's state is a part too."""
        super().setup(trainer)
        if self.placement is not None:
            self.placement.add([Part("optimizer", NEEDED["optimizer"], self._optimizer_tensors)])

    def model_to_device(self) -> None:
        """Place the parts; whatever is not part of one goes to the device for good.

        Raises:
            TypeError: for a module that does not say what its parts are.
        """
        module = self.lightning_module
        if not isinstance(module, PlacedModule):
            raise TypeError(
                f"{type(self).__name__} wants an AudioRLModule, got {type(module).__name__}"
            )
        self.placement = Placement(self._policy, self.root_device, self._budget_bytes)
        self.ledger = Ledger(self.placement, self.root_device)

        parts = module.parts()
        placed: set[int] = set()
        for part in parts:
            placed.update(id(tensor) for tensor in part.tensors())
        for tensor in (*module.parameters(), *module.buffers()):
            if id(tensor) not in placed and not isinstance(tensor, DTensor):
                tensor.data = tensor.data.to(self.root_device)
        self.placement.add(parts)

    def _optimizer_tensors(self) -> list[Tensor]:
        """What the optimizers keep for each parameter."""
        tensors: list[Tensor] = []
        for optimizer in self.optimizers:
            for state in optimizer.state.values():
                # A state of one number, such as AdamW's step, lives on the host.
                tensors += [t for t in state.values() if isinstance(t, Tensor) and t.ndim > 0]
        return tensors

    @contextmanager
    def _values(self) -> Iterator[None]:
        """Every parked tensor shows its value inside."""
        if self.placement is None:
            yield
        else:
            with self.placement.all_values():
                yield

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """With the values of parked tensors; they stay in the result when the tensors are parked again."""
        with self._values():
            state = super().lightning_module_state_dict()
            return {
                key: value.detach() if isinstance(value, Tensor) else value
                for key, value in state.items()
            }

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Also into parked tensors, where the strategy loads into them by itself."""
        with self._values():
            return super().load_checkpoint(*args, **kwargs)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Also into parked tensors."""
        with self._values():
            super().load_model_state_dict(checkpoint, strict=strict)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """With the values of parked tensors."""
        with self._values():
            state: dict[str, Any] = _detached(super().optimizer_state(optimizer))
            return state

    def teardown(self) -> None:
        """Everything has its value again before Lightning moves it to the CPU."""
        if self.placement is not None:
            self.placement.release()
            self.placement = self.ledger = None
        super().teardown()


def _bytes(gib: float | None) -> int | None:
    if gib is None:
        return None
    check_number("budget_gb", gib, at_least=0)
    return int(gib * 2**30)


def _detached(state: Any) -> Any:
    """The same tree with tensors that keep their values when the originals are parked again."""
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, dict):
        return {key: _detached(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_detached(item) for item in state]
    return state
