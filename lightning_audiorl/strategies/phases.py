"""The phases of a step, and where a strategy hooks into them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, get_args

import torch

Phase = Literal["encode", "rollout", "reward", "reference", "update"]
PHASES: tuple[Phase, ...] = get_args(Phase)


class PhaseClock:
    """Enters phases: tells the strategy, keeps the seconds of each, and knows the present one.

    A Strategy with a ``phase(name)`` context manager is told of each phase; under any other a phase is only timed.
    """

    def __init__(self) -> None:
        self.current: Phase | None = None
        self.seconds: dict[str, float] = {}

    @contextmanager
    def enter(self, name: Phase, strategy: Any = None) -> Iterator[None]:
        """The phase ``name`` inside; nests no further phase."""
        hook = getattr(strategy, "phase", None)
        self.current = name
        start = time.perf_counter()
        try:
            with hook(name) if hook is not None else nullcontext():
                yield
        finally:
            if torch.cuda.is_available() and torch.cuda.is_initialized():
                torch.cuda.current_stream().synchronize()  # not the stream that fetches for the next phase
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.current = None

    def reset(self) -> None:
        """Forget the seconds."""
        self.seconds = {}
