"""Several processes with a whole model each; gradients are summed once per update."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from lightning_audiorl.strategies.mixin import PhaseMixin

_BUCKET_BYTES = 64 * 2**20


def reduce_gradients(parameters: Iterable[nn.Parameter], mean: bool = False) -> None:
    """All-reduce the gradients of plain parameters; a rank without a gradient adds zeros.

    Args:
        parameters: the same on every rank, in the same order.
        mean: divide the sum by the number of ranks.
    """
    bucket: list[Tensor] = []
    size = 0
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if bucket and (size > _BUCKET_BYTES or bucket[0].dtype != parameter.grad.dtype):
            _reduce(bucket, mean)
            bucket, size = [], 0
        bucket.append(parameter.grad)
        size += parameter.grad.nbytes
    if bucket:
        _reduce(bucket, mean)


def _reduce(gradients: list[Tensor], mean: bool) -> None:
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    if mean:
        flat /= torch.distributed.get_world_size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


class PhaseDDP(PhaseMixin, DDPStrategy):
    """``--trainer.strategy phase_ddp``; see `PhaseMixin`.

    The model is not wrapped in ``DistributedDataParallel``: one RL step runs many forward and backward passes, their
    number may differ from rank to rank, and parts may be parked; the gradients are summed when they are complete.
    """

    def configure_ddp(self) -> None:
        """Begin from the weights of rank 0."""
        assert self.lightning_module is not None
        assert self.placement is not None
        if torch.distributed.get_world_size() > 1:
            with self.placement.all_values(), torch.no_grad():
                for tensor in (*self.lightning_module.parameters(), *self.lightning_module.buffers()):
                    value = tensor.data.to(self.root_device)
                    torch.distributed.broadcast(value, src=0)
                    tensor.data.copy_(value)

    def sync_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        if torch.distributed.get_world_size() > 1:
            reduce_gradients(parameters)

    @classmethod
    def register_strategies(cls, strategy_registry: Any) -> None:
        """Registered by name in this package's ``__init__``."""
