"""Runs real code on tensors without values and counts the bytes that it holds."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten

# Tensors of so few elements keep their values whatever their dtype: an optimizer's step counter, a scale.
_SMALL = 64


class _FakeMode(FakeTensorMode):
    """As torch's, but without asking the machine for a GPU at every operation."""

    avoid_device_init = True


class Meter(TorchDispatchMode):
    """Inside, floating-point tensors have shapes and storages but no values; masks, tokens and positions have both.

    Code that asks how many places a mask keeps, or picks them, runs as it is; code that asks for the value of a
    floating-point tensor cannot. What a kernel takes for itself while it runs is not seen.

    Args:
        gradient_shares: see `peak_bytes`; 1 (all of each gradient) is always there.

    Attributes:
        live_bytes: of the storages made inside that are still held.
        peak_bytes: by share of the gradients that a device keeps: the most that was held at once since `reset`. Under
            FSDP2 a rank keeps 1/N of each gradient as soon as it is complete.

    Example:
        >>> meter = Meter()
        >>> with meter:
        ...     kept = torch.zeros(1000)
        ...     product = kept * 2 + 1
        >>> meter.live_bytes, meter.peak_bytes
        (8000, {1.0: 12000})
    """

    def __init__(self, gradient_shares: Iterable[float] = ()) -> None:
        super().__init__()
        self.fake = _FakeMode(allow_non_fake_inputs=True)
        self.live_bytes = 0
        self._gradient_bytes = 0
        self.peak_bytes = dict.fromkeys((1.0, *gradient_shares), 0)
        self._storages: dict[int, weakref.ref[Any]] = {}
        self._is_gradient: set[int] = set()

    def reset(self) -> None:
        """Begin a new peak with what is held now."""
        self.peak_bytes = dict.fromkeys(self.peak_bytes, 0)
        self._note()

    def without_values(self, tensor: Tensor) -> Tensor:
        """A tensor of the same shape, layout and dtype on the CPU; one on the meta device has a place there, too."""
        with self.fake:
            return torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu"
            )

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """Never count the storages of ``tensors``, nor views of them."""
        for tensor in tensors:
            self._track(tensor, counted=False)

    def watch_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Tell gradients from other tensors, from when each is first complete."""
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self.mark_gradient)

    def mark_gradient(self, parameter: Tensor) -> None:
        """Count ``parameter.grad`` as a gradient."""
        assert parameter.grad is not None
        storage = parameter.grad.untyped_storage()
        if storage._cdata not in self._is_gradient:
            self._is_gradient.add(storage._cdata)
            self._gradient_bytes += storage.nbytes()

    def _note(self) -> None:
        """Keep the most that was held, for each share of the gradients."""
        for share in self.peak_bytes:
            held = self.live_bytes - int((1 - share) * self._gradient_bytes)
            self.peak_bytes[share] = max(self.peak_bytes[share], held)

    def _track(self, tensor: Tensor, counted: bool = True) -> None:
        """Count the storage behind ``tensor``, once, until it is gone."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return

        size = storage.nbytes() if counted else 0
        self._storages[key] = weakref.ref(storage, self._forget(key, size))
        self.live_bytes += size

    def _forget(self, key: int, size: int) -> Callable[[Any], None]:
        def gone(_: Any) -> None:
            del self._storages[key]
            self.live_bytes -= size
            if key in self._is_gradient:
                self._is_gradient.remove(key)
                self._gradient_bytes -= size

        return gone

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count the storages that come out of it."""
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return args[0].fake_device

        out = self._run(func, args, kwargs)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._track(leaf)
        self._note()
        return out

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """With values where all that goes in has values, and no floating-point tensor of some size comes out."""
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        has_values = not any(isinstance(tensor, FakeTensor) for tensor in given)
        if has_values and not _makes_floats(func, args, kwargs, given):
            return tree_map_only(Tensor, self._forget_values, func(*args, **kwargs))

        # How much a mask picks is known, since masks have values; torch's own fake tensors would have to guess.
        if func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
            args = (args[0], _places(args[1]), *args[2:])
        if func is aten.masked_select.default and not isinstance(args[1], FakeTensor):
            num_picked = int(args[1].expand(args[0].shape).sum())
            with self.fake:
                return args[0].new_empty(num_picked)
        return self.fake.dispatch(func, (), args, kwargs)

    def _forget_values(self, tensor: Tensor) -> Tensor:
        if (
            isinstance(tensor, FakeTensor)
            or not tensor.is_floating_point()
            or tensor.numel() <= _SMALL
        ):
            return tensor
        return self.without_values(tensor)


def _makes_floats(func: Any, args: Any, kwargs: Any, given: list[Tensor]) -> bool:
    """Whether a call without valueless inputs makes a floating-point tensor of some size."""
    dtype = kwargs.get("dtype")
    if dtype is not None:
        return dtype.is_floating_point and (not given or given[0].numel() > _SMALL)
    factory = not given and func.namespace == "aten" and args and isinstance(args[0], list | tuple)
    return bool(factory) and torch.Size(args[0]).numel() > _SMALL


def _places(indices: Any) -> list[Tensor | None]:
    """Indices with each mask replaced by the places that it keeps."""
    out: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and not isinstance(index, FakeTensor):
            out.extend(index.nonzero(as_tuple=True))
        else:
            out.append(index)
    return out
