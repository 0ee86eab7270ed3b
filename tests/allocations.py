"""Watches what torch allocates: the largest tensor, and the bytes that are still held."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class AllocationWatch(TorchDispatchMode):
    """Inside, notes every tensor that an operation returns, forward and backward.

    Attributes:
        largest: the shape of the largest one so far.
        largest_bytes: bytes of its storage.
    """

    def __init__(self) -> None:
        super().__init__()
        self.largest: tuple[int, ...] = ()
        self.largest_bytes = 0
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}
        self._ignored: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._ignored |= {
            x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)
        } - {*self._held}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._ignored:
                storage = tensor.untyped_storage()
                self._held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                if storage.nbytes() > self.largest_bytes:
                    self.largest, self.largest_bytes = tuple(tensor.shape), storage.nbytes()
        return out

    @property
    def held_bytes(self) -> int:
        """Bytes allocated inside that something still holds: a variable, or a graph for its backward pass."""
        return sum(
            num_bytes for reference, num_bytes in self._held.values() if not reference.expired()
        )
