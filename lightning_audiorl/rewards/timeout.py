"""A call that may take so long and no longer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

import torch

_T = TypeVar("_T")


class TooLateError(Exception):
    """A call took longer than it may. No TimeoutError: the call may raise one of its own."""


def within(timeout_s: float, call: Callable[[], _T]) -> _T:
    """What ``call`` returns or raises; it runs in a thread of its own, as if it ran in this one.

    A call that hangs is left behind in its thread, which does not keep the process alive. Python cannot end it, and
    while it holds the interpreter's lock (a loop in a C extension) nobody notices that its time is up.

    Args:
        timeout_s: seconds that the call may take.
        call: without arguments.

    Raises:
        TooLateError: where it takes longer.

    Example:
        >>> within(5.0, lambda: 1 + 1)
        2
    """
    settings = _torch_settings()
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with settings():
                results.append(call())
        except BaseException as error:  # noqa: BLE001  raised again below, in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run, name="reward", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise TooLateError(f"no answer within {timeout_s:g} s")
    if errors:
        raise errors[0]
    return results[0]


def _torch_settings() -> Callable[[], ExitStack]:
    """What torch keeps for each thread by itself, as it is in this one, to be entered in another."""
    grad = torch.is_grad_enabled()
    inference = torch.is_inference_mode_enabled()
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    kinds = ("cpu",) if device is None else ("cpu", "cuda")
    autocasts = []
    for kind in kinds:
        enabled = torch.is_autocast_enabled(kind)
        autocasts.append((kind, torch.get_autocast_dtype(kind), enabled))

    def enter() -> ExitStack:
        stack = ExitStack()
        stack.enter_context(torch.inference_mode(inference))
        stack.enter_context(torch.set_grad_enabled(grad))
        if device is not None:
            stack.enter_context(torch.cuda.device(device))
        for kind, dtype, enabled in autocasts:
            stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled))
        return stack

    return enter
