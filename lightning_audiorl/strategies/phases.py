"""The phases of a step, and where a strategy hooks into them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, Protocol, get_args

import torch

Phase = Literal["encode", "rollout", "reward", "reference", "update"]
PHASES: tuple[Phase, ...] = get_args(Phase)


class PhaseHook(Protocol):
    """Whoever wants to be told of each phase; an `RLStrategy` is one."""

    def phase(self, name: Phase) -> AbstractContextManager[None]:
        """Everything that the phase ``name`` needs is on the device inside."""


class PhaseClock:
    """Enters phases: tells the strategy, keeps the seconds of each, and knows the present one.

    Attributes:
        current: the phase that is under way; None between phases.
        seconds: by phase, since `reset`.

    Example:
        >>> clock = PhaseClock()
        >>> with clock.enter("rollout"):
        ...     print(clock.current)
        rollout
        >>> clock.current, list(clock.seconds)
        (None, ['rollout'])
    """

    def __init__(self) -> None:
        self.current: Phase | None = None
        self.seconds: dict[str, float] = {}

    @contextmanager
    def enter(self, name: Phase, strategy: PhaseHook | None = None) -> Iterator[None]:
        """The phase ``name`` inside; nests no further phase.

        Args:
            name: of the phase.
            strategy: is told of it; without one the phase is only timed.
        """
        self.current = name
        start = time.perf_counter()
        try:
            with nullcontext() if strategy is None else strategy.phase(name):
                yield
        finally:
            # The phase ends when the device is done. Only the stream that computes is waited for, not the one that
            # fetches for the next phase.
            if torch.cuda.is_initialized():
                torch.cuda.current_stream().synchronize()

            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.current = None

    def reset(self) -> None:
        """Forget the seconds."""
        self.seconds = {}
