"""Cross-entropy of the reference texts: supervised finetuning, or a term beside another loss."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_audiorl.losses.base import Loss, Prepared, Scorer
from lightning_audiorl.losses.step import MicroBatch, RLStep
from lightning_audiorl.ops import token_log_probs


class CrossEntropy(Loss[Prepared]):
    """Mean negative log-likelihood of the reference tokens, stop token included, at temperature 1.

    Beside another loss in one run it reads the same encoded prompts; samples and rewards do not matter to it.
    """

    name = "sft"
    sum_names = ("loss", "tokens")

    def prepare(self, step: RLStep, scorer: Scorer) -> Prepared:
        return Prepared()

    def compute(
        self, prepared: Prepared, micro_batch: MicroBatch, divisor: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        policy = self.settings.policy
        targets = policy.targets(micro_batch.context, [row.text for row in micro_batch.rows])
        tokens = targets.tokens.flatten(0, 1)
        keep = targets.keep.flatten(0, 1)

        hidden = policy.hidden(micro_batch.context, targets)
        scored = token_log_probs(
            hidden, policy.target_head, tokens, keep, chunk_size=self.settings.chunk_size
        )
        # A sum, no mean: how many tokens the whole step has, only the passes of all micro-batches and ranks tell.
        loss = -scored.log_probs.sum()
        return loss, {"loss": loss.detach(), "tokens": keep.sum()}

    def metrics(
        self, prepared: Prepared, sums: dict[str, float], divisor: float
    ) -> dict[str, float]:
        mean = sums["loss"] / sums["tokens"]
        return {
            "loss": mean,
            "tokens": int(sums["tokens"]),
            "perplexity": float(torch.tensor(mean).exp()),
        }
