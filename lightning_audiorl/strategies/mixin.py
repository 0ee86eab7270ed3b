"""What the three strategies share: phases, the placement behind them, and state dicts in spite of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_audiorl.strategies.ledger import Ledger
from lightning_audiorl.strategies.parts import NEEDED, Part
from lightning_audiorl.strategies.phases import Phase
from lightning_audiorl.strategies.placement import Placement, PlacementPolicy


class PhaseMixin:
    """Stands before a Lightning strategy among the bases.

    The LightningModule says what there is to place with ``parts() -> list[Part]``; the strategy adds the optimizer.

    Args:
        placement: "offload" (the default), "resident" or "auto"; see `Placement`.
        budget_gb: for "auto": GiB that parts may take on the device.
        kwargs: of the Lightning strategy.
    """

    def __init__(self, placement: PlacementPolicy = "offload", budget_gb: float | None = None, **kwargs: Any) -> None:
        Placement(placement, torch.device("cpu"), _bytes(budget_gb))  # a bad setting fails here, not in the run
        super().__init__(**kwargs)
        self._placing: tuple[PlacementPolicy, int | None] = (placement, _bytes(budget_gb))
        self.placement: Placement | None = None
        self.ledger: Ledger | None = None

    #: What a loss is multiplied by so that `sync_gradients` leaves the sum over ranks.
    loss_scale: float = 1.0

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

    def setup(self, trainer: Any) -> None:
        """As Lightning does it; then the optimizer's state is a part too."""
        super().setup(trainer)  # type: ignore[misc]
        if self.placement is not None:
            self.placement.add([Part("optimizer", NEEDED["optimizer"], self._optimizer_tensors)])

    def model_to_device(self) -> None:
        """Place the parts; whatever is not part of one goes to the device for good."""
        own: Any = self
        module, device = own.lightning_module, own.root_device
        if not hasattr(module, "parts"):
            raise TypeError(f"{type(self).__name__} wants an AudioRLModule, got {type(module).__name__}")
        self.placement = Placement(self._placing[0], device, self._placing[1])
        self.ledger = Ledger(self.placement, device)
        parts: list[Part] = module.parts()
        placed = {id(tensor) for part in parts for tensor in part.tensors()}
        for tensor in (*module.parameters(), *module.buffers()):
            if id(tensor) not in placed and not isinstance(tensor, DTensor):
                tensor.data = tensor.data.to(device)
        self.placement.add(parts)

    def _optimizer_tensors(self) -> list[Tensor]:
        own: Any = self
        states = [state for optimizer in own.optimizers for state in optimizer.state.values()]
        # A state of one number, such as AdamW's step, lives on the host.
        return [t for state in states for t in state.values() if isinstance(t, Tensor) and (t.ndim > 0)]

    @contextmanager
    def _values(self) -> Iterator[None]:
        if self.placement is None:
            yield
        else:
            with self.placement.all_values():
                yield

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """With the values of parked tensors; they stay in the result when the tensors are parked again."""
        with self._values():
            state: dict[str, Any] = super().lightning_module_state_dict()  # type: ignore[misc]
            return {key: value.detach() if isinstance(value, Tensor) else value for key, value in state.items()}

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Also into parked tensors, where the strategy loads into them by itself."""
        with self._values():
            loaded: dict[str, Any] = super().load_checkpoint(*args, **kwargs)  # type: ignore[misc]
            return loaded

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Also into parked tensors."""
        with self._values():
            super().load_model_state_dict(checkpoint, strict=strict)  # type: ignore[misc]

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """With the values of parked tensors."""
        with self._values():
            state: dict[str, Any] = super().optimizer_state(optimizer)  # type: ignore[misc]
            return _detached(state)

    def teardown(self) -> None:
        """Everything has its value again before Lightning moves it to the CPU."""
        if self.placement is not None:
            self.placement.release()
            self.placement = self.ledger = None
        super().teardown()  # type: ignore[misc]


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else int(gib * 2**30)


def _detached(state: Any) -> Any:
    """The same tree with tensors that keep their values when the originals are parked again."""
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, dict):
        return {key: _detached(value) for key, value in state.items()}
    return [_detached(item) for item in state] if isinstance(state, list) else state
