"""Optimiser and learning-rate schedule; both count RL steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class Optim:
    """AdamW with linear warm-up and a decay that ends at ``num_steps``.

    Args:
        lr: peak learning rate.
        schedule: "constant", "linear" or "cosine" decay after the warm-up, down to ``min_lr_ratio`` x lr.
        warmup_steps: RL steps of linear warm-up.
        min_lr_ratio: floor of the decay.
        weight_decay, betas: AdamW's.
        max_grad_norm: gradient clipping by global norm; 0 is off.
    """

    lr: float = 1e-5
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = 0
    min_lr_ratio: float = 0.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.warmup_steps < 0 or self.max_grad_norm < 0:
            raise ValueError("Optim: want lr > 0, warmup_steps >= 0, max_grad_norm >= 0")

    def factor(self, num_steps: int) -> Callable[[int], float]:
        """Learning-rate factor by RL step (0 is the first step)."""

        def at(step: int) -> float:
            if step < self.warmup_steps:
                return (step + 1) / self.warmup_steps
            if self.schedule == "constant":
                return 1.0
            done = min(1.0, (step - self.warmup_steps) / max(1, num_steps - self.warmup_steps))
            decay = 1 - done if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
            return self.min_lr_ratio + (1 - self.min_lr_ratio) * decay

        return at

    def build(self, parameters: Iterable[nn.Parameter], num_steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """The optimiser and its schedule."""
        optimizer = torch.optim.AdamW(list(parameters), lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)
        return optimizer, LambdaLR(optimizer, self.factor(num_steps))
