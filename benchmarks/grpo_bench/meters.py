"""What a worker process reads off itself: memory, tokens through the model, the rate of a plain product."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Memory:
    """Most memory in use beyond a baseline: the CUDA allocator's, else the resident set of this process (Linux)."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.baseline_bytes = 0

    def start(self) -> None:
        """Take the baseline, and forget every peak before it."""
        gc.collect()
        if self.device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.baseline_bytes = torch.cuda.memory_allocated()
            return
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        self.baseline_bytes = _status("VmRSS")

    def peak_bytes(self) -> int:
        """Peak since `start`, all that the process holds."""
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else _status("VmHWM")

    def added_bytes(self) -> int:
        """Peak since `start` beyond the baseline."""
        return self.peak_bytes() - self.baseline_bytes


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


class TokenCounter:
    """Positions that go through the first layer of a language model, by phase; padding counts."""

    def __init__(self, phase: Callable[[], str | None]) -> None:
        self.phase = phase
        self.tokens: dict[str, int] = {}

    def watch(self, layer: nn.Module) -> None:
        layer.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        states = args[0] if args else kwargs["hidden_states"]
        name = self.phase() or "other"
        self.tokens[name] = self.tokens.get(name, 0) + states.shape[:-1].numel()

    def take(self) -> dict[str, int]:
        """What was counted since the last call."""
        out, self.tokens = self.tokens, {}
        return out


class StepCounter:
    """Calls of an optimizer's ``step``."""

    def __init__(self) -> None:
        self.count = 0

    def watch(self, optimizer: Any) -> None:
        inner = getattr(optimizer, "optimizer", optimizer)
        inner.register_step_post_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.count += 1

    def take(self) -> int:
        out, self.count = self.count, 0
        return out


def product_rate(device: str, size: int = 2048, repeats: int = 5) -> float:
    """FLOP/s of a float32 product of two square matrices: the floor's unit. Median of ``repeats`` after one more."""
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    taken = []
    for _ in range(repeats + 1):
        start = now(device)
        a @ b
        taken.append(now(device) - start)
    return 2 * size**3 / statistics.median(taken[1:])


def now(device: str) -> float:
    """Seconds on a clock, everything queued on the device done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
