"""One small float64 rollout with everything that can go wrong in it: lengths, masked NaN, unused samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_audiorl.ops import lengths_to_keep


@dataclass(frozen=True)
class Case:
    """[B=3, G=4, T=5] log-probs and masks; the last group is unused as a whole."""

    log_probs: Tensor
    old_log_probs: Tensor
    ref_log_probs: Tensor
    advantages: Tensor
    keep: Tensor
    used: Tensor

    @property
    def mask(self) -> Tensor:
        return self.keep & self.used.unsqueeze(-1)

    def poisoned(self) -> Case:
        """NaN wherever nothing may be read."""
        nan = float("nan")
        spoil = [
            x.masked_fill(~self.mask, nan)
            for x in (self.log_probs, self.old_log_probs, self.ref_log_probs)
        ]
        return Case(*spoil, self.advantages.masked_fill(~self.used, nan), self.keep, self.used)


def make_case(spread: float = 0.3, seed: int = 0) -> Case:
    """``spread``: how far apart policy, old policy and reference are, in nats."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    log_probs = -normal(3, 4, 5).abs() - 0.1
    keep = lengths_to_keep(torch.tensor([[5, 2, 3, 1], [4, 5, 2, 2], [3, 3, 1, 5]]), 5)
    used = torch.tensor([[True, True, True, True], [True, False, True, True], [False] * 4])
    old, ref = log_probs + spread * normal(3, 4, 5), log_probs + spread * normal(3, 4, 5)
    return Case(log_probs, old, ref, normal(3, 4), keep, used)
