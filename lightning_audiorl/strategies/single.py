"""One device: the parts of a step take turns on it."""

from __future__ import annotations

import torch
from lightning import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy

from lightning_audiorl.strategies.mixin import PhaseMixin


class PhaseSingleDevice(PhaseMixin, SingleDeviceStrategy):
    """``--trainer.strategy phase_single``; see `PhaseMixin`.

    Attributes:
        parallel_devices: the Trainer writes its devices here; a plain single-device strategy is not told.
    """

    strategy_name = "phase_single"
    parallel_devices: list[torch.device] | None = None

    @property
    def root_device(self) -> torch.device:
        """The Trainer's device, else the one given to the constructor."""
        return self.parallel_devices[0] if self.parallel_devices else self._root_device

    def setup(self, trainer: Trainer) -> None:
        """As Lightning does it, and the parts are placed.

        Raises:
            ValueError: for more than one device.
        """
        if self.parallel_devices and len(self.parallel_devices) > 1:
            raise ValueError(
                f"strategy phase_single takes one device, not {len(self.parallel_devices)}; "
                "use phase_ddp or phase_fsdp, or set trainer.devices to 1"
            )
        super().setup(trainer)
