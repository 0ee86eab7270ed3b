"""Models made of their configuration alone: the real classes and parameters, without the parameters' values.

What loads a model asks `wanted`. Inside `outlines` it makes the model by `from_config` in place of reading weights:

    with outlines():
        policy = FunAsrNanoPolicy("FunAudioLLM/Fun-ASR-Nano-2512-hf")

The command ``plan`` counts the bytes of such a policy, and traces its phases.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

_WANTED: ContextVar[bool] = ContextVar("outlines", default=False)


@contextmanager
def outlines() -> Iterator[None]:
    """Inside, policies and codecs read the configuration of a model, neither its weights nor its tokenizer.

    Example:
        >>> with outlines():
        ...     wanted()
        True
        >>> wanted()
        False
    """
    before = _WANTED.set(True)
    try:
        yield
    finally:
        _WANTED.reset(before)


def wanted() -> bool:
    """Whether models are to be made of their configuration alone."""
    return _WANTED.get()


def from_config(model_class: Any, config: Any, dtype: torch.dtype | None = None) -> Any:
    """The transformers model of a configuration, its tensors on the meta device.

    Args:
        model_class: a class of models, or an Auto class, which chooses by the configuration.
        config: of the model.
        dtype: of the weights; None is what the configuration says.
    """
    # The public `from_config` is an Auto class's; a class of models has only this one.
    make = getattr(model_class, "_from_config", None) or model_class.from_config
    with torch.device("meta"):
        return make(config) if dtype is None else make(config, dtype=dtype)
