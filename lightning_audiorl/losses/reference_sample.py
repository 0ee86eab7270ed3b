"""The reference text as one more sample of its group, for rows whose right answer is rarely sampled."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from lightning_audiorl.checks import check_number
from lightning_audiorl.types import Scores


@dataclass(frozen=True)
class ReferenceSample:
    """How the reference text of a row takes part in its group: mixed-policy GRPO (arXiv 2509.16990, 2504.14945).

    It is rewarded like the G samples, enters their mean and standard deviation, and its advantage times its
    log-probability is one more term of the loss, which is divided over G + 1 samples. It was not sampled, so that term
    has no ratio, no clip and no KL penalty. Logged metrics of rewards and lengths stay those of the policy's samples.

    Where a model answers silence with text at nearly every draw, groups of its own samples are all wrong and all
    alike: nothing is learnt from them. A row whose text the policy never samples goes without: it has no tokens for it,
    or they are among those that a Whisper checkpoint suppresses.

    Args:
        only_below: take it only where no sample of the group has a reward of at least this; None is everywhere.
        shaping: gamma of f(p) = p / (p + gamma), which stands for log p of each token (arXiv 2504.14945, with 0.1):
            tokens that the policy finds nearly impossible are then learnt slowly. None is log p.

    Example:
        >>> ReferenceSample(only_below=0.5)
        ReferenceSample(only_below=0.5, shaping=None)
    """

    only_below: float | None = None
    shaping: float | None = None

    def __post_init__(self) -> None:
        if self.only_below is not None:
            check_number("ReferenceSample.only_below", self.only_below)
        if self.shaping is not None:
            check_number("ReferenceSample.shaping", self.shaping, above=0)

    def wanted(self, rewards: Tensor, scores: Scores) -> Tensor:
        """[B] bool: which groups the reference takes part in.

        Args:
            rewards: [B] of the references; NaN where there is none.
            scores: [B, G] of the samples.
        """
        wanted = rewards.isfinite()
        if self.only_below is None:
            return wanted
        best = scores.total.masked_fill(~scores.valid, -math.inf).amax(-1)
        return wanted & (best < self.only_below)

    def terms(self, log_probs: Tensor, advantages: Tensor) -> Tensor:
        """[B, 1, T], to be maximised.

        Args:
            log_probs: [B, 1, T] of the references' tokens, with their graph.
            advantages: [B].
        """
        value = log_probs
        if self.shaping is not None:
            probability = log_probs.exp()
            value = probability / (probability + self.shaping)
        return advantages[:, None, None] * value
