"""How probable a policy finds the reference texts of an evaluation set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_audiorl.metrics.specs import Format, MetricSpec, RegistersSpecs, percent


class ReferenceProbability(RegistersSpecs, Metric):
    """Mean log-probability of the reference texts, and of the empty answer where that is right; sums over processes.

    ``reference_logprob`` is the mean over rows of the log-probability of the whole text with its stop token, in nats;
    ``empty_answer_probability`` the mean probability of no text over the rows whose reference is empty. NaN where there
    is no such row.

    Example:
        >>> metric = ReferenceProbability()
        >>> metric.update([math.log(0.5), math.log(0.25), math.nan], [True, False, False])
        >>> {name: round(float(value), 4) for name, value in metric.compute().items()}
        {'reference_logprob': -1.0397, 'empty_answer_probability': 0.5}
    """

    specs = (
        MetricSpec(
            "reference_logprob", "higher", Format("log P(ref)", digits=2), bars=None, watch=None
        ),
        MetricSpec(
            "empty_answer_probability", "higher", percent("P(no text)"), bars=None, watch=None
        ),
    )
    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    sums: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        zeros = torch.zeros(4, dtype=torch.float64)
        self.add_state("sums", default=zeros, dist_reduce_fx="sum")

    def update(self, log_probs: Sequence[float], is_empty: Sequence[bool]) -> None:
        """Add rows.

        Args:
            log_probs: of their reference texts, in nats; NaN of a text that the policy cannot write, which counts
                nowhere.
            is_empty: whose reference is no text.
        """
        for log_prob, empty in zip(log_probs, is_empty, strict=True):
            if math.isnan(log_prob):
                continue
            probability = math.exp(log_prob) if empty else 0.0
            row = [log_prob, 1.0, probability, float(empty)]
            self.sums += torch.tensor(row, dtype=torch.float64, device=self.sums.device)

    def compute(self) -> dict[str, Tensor]:
        """Both means."""
        total, rows, probability, empty = self.sums
        return {
            "reference_logprob": total / rows,
            "empty_answer_probability": probability / empty,
        }
