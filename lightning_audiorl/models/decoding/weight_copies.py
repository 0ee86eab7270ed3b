"""Copies of linear layers' weights as a rollout reads them: cast once, and on a CPU laid out for thin products.

A decoding step multiplies some dozen rows by every weight of the model. Under autocast each step casts the float32
weights anew; on a CPU each product of torch lays the weight out anew, which for so few rows takes as long as the
product. A copy made once serves all steps of a rollout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.functional import linear


@dataclass
class _Copy:
    """What one layer computes by.

    Args:
        source: the weight that it was made of, and how often that had been written to.
        weight: [out, in], of the dtype that the product computes in; on a CPU as oneDNN lays it out.
        bias: of the same dtype.
        num_bytes: of the weight. A tensor of oneDNN does not tell.
    """

    source: tuple[Any, ...]
    weight: Tensor
    bias: Tensor | None
    num_bytes: int

    def __call__(self, x: Tensor) -> Tensor:
        if self.weight.is_mkldnn:
            x = x.to(self.weight.dtype)
            out: Tensor = torch.ops.mkldnn._linear_pointwise(
                x, self.weight, self.bias, "none", [], ""
            )
            return out
        return linear(x.to(self.weight.dtype), self.weight, self.bias)


@dataclass
class WeightCopies:
    """The copies of some layers; those of frozen weights are kept from one rollout to the next.

    Attributes:
        kept: of frozen weights.
        peak_bytes: of all copies, in the last rollout.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> copies = WeightCopies()
        >>> with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), copies.used([layer]):
        ...     layer(torch.zeros(1, 2)).dtype
        torch.bfloat16
        >>> copies.peak_bytes, copies.num_bytes  # two values; they train, so nothing is kept
        (4, 0)
    """

    kept: dict[nn.Linear, _Copy] = field(default_factory=dict)
    peak_bytes: int = 0

    @property
    def num_bytes(self) -> int:
        """Of those that are kept."""
        return sum(copy.num_bytes for copy in self.kept.values())

    @contextmanager
    def used(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """The linear layers among ``modules`` and below them compute by copies; without gradients."""
        made: dict[nn.Linear, _Copy] = {}
        for layer in copied_layers(modules):
            dtype = _computed_in(layer.weight)
            if copy_bytes(layer.weight, layer.weight.device.type, dtype):
                made[layer] = self._copy(layer, dtype)
        self.peak_bytes = sum(copy.num_bytes for copy in made.values())

        try:
            for layer, copy in made.items():
                layer.forward = copy.__call__  # type: ignore[assignment,method-assign]
            yield
        finally:
            for layer in made:
                del layer.forward
            self.kept = {
                layer: copy for layer, copy in made.items() if not layer.weight.requires_grad
            }

    def free(self) -> None:
        """Keep nothing."""
        self.kept = {}

    def _copy(self, layer: nn.Linear, dtype: torch.dtype) -> _Copy:
        weight = layer.weight.detach()
        version = 0 if layer.weight.is_inference() else layer.weight._version
        source = (layer.weight.data_ptr(), weight.shape, version, dtype)
        kept = self.kept.get(layer)
        if kept is not None and kept.source == source:
            return kept

        size = weight.numel() * dtype.itemsize
        weight = weight.to(dtype)
        if weight.device.type == "cpu" and _has_layout(dtype):
            weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        return _Copy(source, weight, bias, size)


def copied_layers(modules: Iterable[nn.Module]) -> list[nn.Linear]:
    """Layers that are no more than a product, each once: subclasses, quantised ones among them, compute otherwise."""
    layers = {layer: None for module in modules for layer in module.modules()}
    # So do layers that somebody else patched.
    return [layer for layer in layers if type(layer) is nn.Linear and "forward" not in vars(layer)]


def copy_bytes(weight: Tensor, device: str, dtype: torch.dtype) -> int:
    """Of a copy of ``weight`` for products of ``dtype``; 0 where a copy would be of no use.

    Sharded and parked weights are none to copy.
    """
    if isinstance(weight, DTensor) or not weight.numel():
        return 0
    is_useful = dtype != weight.dtype or (device == "cpu" and _has_layout(dtype))
    return weight.numel() * dtype.itemsize if is_useful else 0


def _has_layout(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies by this dtype on this machine."""
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def _computed_in(weight: Tensor) -> torch.dtype:
    """The dtype of products with ``weight``."""
    device = weight.device.type
    if torch.is_autocast_enabled(device) and weight.dtype == torch.float32:
        return torch.get_autocast_dtype(device)
    return weight.dtype
