"""Several processes with a whole model each; gradients are summed once per update."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from lightning_audiorl.strategies.mixin import PhaseMixin

# Gradients are sent together up to this size: few large messages are faster than many small ones.
_BUCKET_BYTES = 64 * 2**20


def reduce_gradients(parameters: Iterable[nn.Parameter], mean: bool = False) -> None:
    """All-reduce the gradients of plain parameters; a rank without a gradient adds zeros.

    Args:
        parameters: the same on every rank, in the same order.
        mean: divide the sum by the number of ranks.
    """
    bucket: list[Tensor] = []
    num_bytes = 0
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)

        # One message holds one dtype. Full buckets end at the same parameter on every rank.
        is_full = num_bytes > _BUCKET_BYTES
        if bucket and (is_full or bucket[0].dtype != parameter.grad.dtype):
            _reduce(bucket, mean)
            bucket = []
            num_bytes = 0

        bucket.append(parameter.grad)
        num_bytes += parameter.grad.nbytes

    if bucket:
        _reduce(bucket, mean)


def _reduce(gradients: list[Tensor], mean: bool) -> None:
    """One all-reduce over gradients of one dtype, in place."""
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    if mean:
        flat /= torch.distributed.get_world_size()

    sizes = [gradient.numel() for gradient in gradients]
    for gradient, reduced in zip(gradients, flat.split(sizes), strict=True):
        gradient.copy_(reduced.view_as(gradient))


class PhaseDDP(PhaseMixin, DDPStrategy):
    """``--trainer.strategy phase_ddp``; see `PhaseMixin`.

    The model is not wrapped in ``DistributedDataParallel``: one RL step runs many forward and backward passes, their
    number may differ from rank to rank, and parts may be parked; the gradients are summed when they are complete.
    """

    def configure_ddp(self) -> None:
        """Begin from the weights of rank 0."""
        module = self.lightning_module
        assert module is not None
        assert self.placement is not None
        if torch.distributed.get_world_size() == 1:
            return

        # A parked tensor is in host memory, and only the device takes part in a broadcast.
        with self.placement.all_values(), torch.no_grad():
            for tensor in (*module.parameters(), *module.buffers()):
                value = tensor.data.to(self.root_device)
                torch.distributed.broadcast(value, src=0)
                tensor.data.copy_(value)

    def sync_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients of all ranks; a rank without a gradient adds zeros."""
        if torch.distributed.get_world_size() > 1:
            reduce_gradients(parameters)

    @classmethod
    def register_strategies(cls, strategy_registry: Any) -> None:
        """Nothing: the name is registered in this package's ``__init__``."""
