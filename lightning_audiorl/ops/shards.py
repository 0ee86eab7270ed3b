"""The part of a tensor that this process holds."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor


def local(value: Tensor) -> Tensor:
    """The values that this process holds, without gradients: of a sharded tensor its shard, else all of it."""
    held: Tensor = value.to_local() if isinstance(value, DTensor) else value
    return held.detach()
