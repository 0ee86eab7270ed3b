"""Weights on their way to another process: safetensors in shared memory."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedConfig

from lightning_audiorl.serving.errors import EngineError
from lightning_audiorl.serving.process import Described, describe
from lightning_audiorl.weights.tensors import misfit, not_finite, some_of

_log = logging.getLogger(__name__)

_SHARED_MEMORY = Path("/dev/shm")


def on_host(weights: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Weights as they are served: on the CPU, in one precision, each with its own memory.

    Raises:
        EngineError: for NaN or infinite values, also in that precision alone.
    """
    as_dtype = getattr(torch, dtype)
    copies: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, value in weights.items():
        copy = value.to("cpu", as_dtype).contiguous()
        # A head may be the embedding.
        if copy.data_ptr() in taken:
            copy = copy.clone()
        taken.add(copy.data_ptr())
        copies[name] = copy

    bad = not_finite(copies)
    if bad:
        raise EngineError(
            f"weights of the engine: NaN or infinite values in {some_of(bad)} as {dtype}; nothing was sent"
        )
    return copies


def check_same_model(served: Described, weights: Mapping[str, Tensor]) -> None:
    """See that weights have the names and shapes that are served.

    Args:
        served: of `describe`, when the engine was started.
        weights: that are to be pushed.

    Raises:
        EngineError: naming the tensors that differ.
    """
    shared = served.keys() & weights.keys()
    reshaped = {
        name: (list(weights[name].shape), served[name][1])
        for name in shared
        if list(weights[name].shape) != served[name][1]
    }
    differing = misfit(served.keys() - shared, weights.keys() - shared, reshaped)
    if differing:
        raise EngineError(f"weights of the engine: {differing}; nothing was sent")


def a_place_for(num_bytes: int, folder: str | None) -> str:
    """The folder that weights are put into: one that was chosen, shared memory, or the disk's.

    Args:
        num_bytes: of the weights.
        folder: that the user has chosen; None for none.

    Raises:
        ValueError: for a folder that is none.
    """
    if folder is not None:
        if not Path(folder).is_dir():
            raise ValueError(f"VllmEngine.folder: {folder} is no folder")
        return folder
    is_usable = _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK)
    if is_usable and shutil.disk_usage(_SHARED_MEMORY).free > 1.1 * num_bytes:
        return str(_SHARED_MEMORY)

    place = tempfile.gettempdir()
    _log.warning(
        "%s has no room for %.1f GiB: weights go to the engine through %s",
        _SHARED_MEMORY,
        num_bytes / 2**30,
        place,
    )
    return place


class PushedFolder:
    """A folder of weights for as long as they are read; gone with the ``with`` block.

    Args:
        weights: of `on_host`.
        place: where it is made.
        config: for a folder that a model is loaded from.

    Attributes:
        path: of the folder.
        described: what it holds; see `describe`.
        num_bytes: of the weights.

    Example:
        >>> with PushedFolder({"a": torch.zeros(2)}, tempfile.gettempdir()) as folder:
        ...     folder.described["a"][:2], sorted(os.listdir(folder.path))
        (['float32', [2]], ['model.safetensors'])
    """

    def __init__(
        self, weights: dict[str, Tensor], place: str, config: PreTrainedConfig | None = None
    ) -> None:
        self.num_bytes = sum(value.numel() * value.element_size() for value in weights.values())
        self.described = describe(weights)
        self.path = tempfile.mkdtemp(prefix="audiorl-weights-", dir=place)
        try:
            # The format is what loaders of transformers' own ask for.
            save_file(weights, Path(self.path) / "model.safetensors", metadata={"format": "pt"})
            if config is not None:
                config.save_pretrained(self.path)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Give the memory back."""
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> PushedFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
