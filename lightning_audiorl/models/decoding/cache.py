"""A key/value cache with room to grow in, for token-by-token decoding without gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache as remembered
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

_SPARE = 64


@remembered
def _has_cache_argument(forward: Callable[..., Any]) -> bool:
    return "cache" in inspect.signature(forward).parameters


def cache_argument(model: nn.Module, cache: Cache) -> dict[str, Cache]:
    """A key-value cache as the argument that a model's forward takes.

    Its name is ``cache`` from transformers 5.24 on, which warns of the old name; code of a checkpoint's own keeps that.
    """
    name = "cache" if _has_cache_argument(type(model).forward) else "past_key_values"
    return {name: cache}


class RoomyLayer(DynamicLayer):
    """One layer's keys and values as views into larger buffers.

    transformers' own layer concatenates the whole cache anew for each token, which an audio prompt of hundreds of
    frames makes dear; benchmarks/rollout_cache.py measures it.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.is_initialized = True
        self.dtype = keys.dtype
        self.device = keys.device
        self._hold(keys, values)

    def _hold(self, keys: Tensor, values: Tensor, num_new: int = 0) -> None:
        """Copy into new buffers with room for ``num_new`` tokens, and spare room."""
        length = keys.shape[-2]
        # In proportion to what is there, so that a long completion is not copied at every few tokens.
        spare = max(_SPARE, length // 4)
        *rows, _, width = keys.shape
        shape = (*rows, length + num_new + spare, width)
        self._keys = keys.new_empty(shape)
        self._values = values.new_empty(shape)
        self._put(keys, values, 0)

    def _put(self, keys: Tensor, values: Tensor, start: int) -> None:
        """Write tokens into the buffers from ``start`` on; they are the last ones from then on."""
        end = start + keys.shape[-2]
        self._keys[..., start:end, :] = keys
        self._values[..., start:end, :] = values
        self.keys = self._keys[..., :end, :]
        self.values = self._values[..., :end, :]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        if end > self._keys.shape[-2]:
            self._hold(self.keys, self.values, end - start)
        self._put(key_states, value_states, start)
        return self.keys, self.values

    def lengthen(self, num: int) -> None:
        """``num`` tokens more, as if they came one by one; their keys and values are whatever stood there."""
        while num > 0:
            rows, heads, length, width = self.keys.shape
            step = min(num, max(1, self._keys.shape[-2] - length))
            new = self.keys.new_empty(rows, heads, step, width)
            self.update(new, new)
            num -= step

    def batch_select_indices(self, indices: Tensor) -> None:
        self._hold(self.keys[indices], self.values[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._hold(
            self.keys.repeat_interleave(repeats, 0), self.values.repeat_interleave(repeats, 0)
        )


class SharedPromptLayer(RoomyLayer):
    """One layer of a rollout: keys and values of B prompts, held once each, and of what R rows appended to them.

    `keys` and `values` are those of the rows alone; `update` returns them.

    Args:
        prompt_keys, prompt_values: [B, key heads, P, D].
        num_rows: R.
    """

    def __init__(self, prompt_keys: Tensor, prompt_values: Tensor, num_rows: int) -> None:
        _, heads, _, width = prompt_keys.shape
        nothing = (num_rows, heads, 0, width)
        super().__init__(prompt_keys.new_empty(nothing), prompt_values.new_empty(nothing))
        self.prompt_keys = prompt_keys.contiguous()
        self.prompt_values = prompt_values.contiguous()

    def get_seq_length(self) -> int:
        return self.prompt_keys.shape[-2] + self.keys.shape[-2]

    def select_prompts(self, prompts: Tensor) -> None:
        """Hold these prompts only."""
        self.prompt_keys = self.prompt_keys[prompts]
        self.prompt_values = self.prompt_values[prompts]

    def batch_repeat_interleave(self, repeats: int) -> None:
        raise NotImplementedError("rows of a shared prompt are not repeated")


@torch.no_grad()
def make_room(cache: DynamicCache) -> None:
    """Let a filled cache grow in place from now on (again: nothing happens); only for decoding without gradients."""
    layers: list[Any] = cache.layers
    if all(type(layer) is DynamicLayer for layer in layers):
        cache.layers = [RoomyLayer(layer.keys, layer.values) for layer in layers]


@torch.no_grad()
def lengthen(cache: DynamicCache, num: int) -> None:
    """Take up the room of ``num`` tokens more, buffers laid anew where decoding token by token would lay them."""
    make_room(cache)
    layers: list[Any] = cache.layers
    for layer in layers:
        layer.lengthen(num)


def held_bytes(cache: DynamicCache) -> int:
    """Bytes of all buffers of a cache, room to grow in included; a shared prompt counts once."""
    tensors: list[Tensor] = []
    layers: list[Any] = cache.layers
    for layer in layers:
        tensors += [value for value in vars(layer).values() if isinstance(value, Tensor)]
    sizes = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors
    }
    return sum(sizes.values())
