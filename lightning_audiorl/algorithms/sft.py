"""Supervised finetuning on reference texts: the warm start, and the control of every RL figure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lightning_audiorl.algorithms.base import AudioRLModule
from lightning_audiorl.algorithms.ranks import agreed, equal_passes, total
from lightning_audiorl.models.policy import Context
from lightning_audiorl.ops import key_to_seed, token_log_probs
from lightning_audiorl.types import PromptBatch


class SFT(AudioRLModule):
    """Mean negative log-likelihood of the reference tokens, stop token included.

    Args:
        micro_batch_size: prompts per forward and backward pass; 0 takes the whole batch at once.
        chunk_size: positions per call of the head; None keeps one chunk's logits small, 0 takes all at once.
        kwargs: see `AudioRLModule`.
    """

    def __init__(self, *args: Any, micro_batch_size: int = 0, chunk_size: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.micro_batch_size = micro_batch_size
        self.chunk_size = chunk_size

    def training_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """One step over the batch, in micro-batches of neighbouring durations."""
        self.policy.train()  # a model from a folder comes in eval mode, without its dropout
        # Dropout draws from the global generator; keyed by the step, a resumed run draws the same.
        torch.manual_seed(key_to_seed("dropout", self.seed, self.rl_step))
        size = self.micro_batch_size or len(batch)
        order = sorted(range(len(batch)), key=lambda i: int(batch.num_samples[i]))
        pieces = [order[i : i + size] for i in range(0, len(order), size)]
        strategy: Any = self.trainer.strategy
        scale = getattr(strategy, "loss_scale", 1.0)
        loss_sum, num_tokens = 0.0, 0
        with agreed(strategy, "the forward and backward passes"):
            for part, counts, context in self._encoded(batch, equal_passes(strategy, pieces)):
                with self.phase("update"):
                    loss, num = self._loss(part, context)
                    self.manual_backward(loss * (scale * counts))
                loss_sum += float(loss.detach()) * counts
                num_tokens += num * counts
        loss_sum, num_tokens = total(strategy, loss_sum), int(total(strategy, num_tokens))
        with self.phase("update"):
            for parameter in self.policy.trainable().values():
                if parameter.grad is not None:
                    parameter.grad.div_(num_tokens)
            stepped = self.optimizer_step_clipped()
        loss_value = loss_sum / num_tokens
        self.log("loss", loss_value, prog_bar=True, logger=False)
        perplexity = float(torch.tensor(loss_value).exp())
        figures = {"loss": loss_value, "tokens": num_tokens, "perplexity": perplexity}
        self.finish_step(figures | stepped, weight=len(batch))

    def _encoded(
        self, batch: PromptBatch, pieces: list[tuple[list[int], bool]]
    ) -> Iterator[tuple[PromptBatch, bool, Context]]:
        """Each piece with its context: all encoded before the first update, unless the encoder trains."""

        def encode(piece: list[int]) -> tuple[PromptBatch, Context]:
            part = batch if piece == list(range(len(batch))) else batch.select(piece)
            return part, self.policy.encode(part)

        modules = self.policy.parts().get("encoder", [])
        if any(p.requires_grad for module in modules for p in module.parameters()):
            for piece, counts in pieces:
                with self.phase("encode"):
                    part, context = encode(piece)
                yield part, counts, context
            return
        with self.phase("encode"):
            encoded = [encode(piece) for piece, _ in pieces]
        for (part, context), (_, counts) in zip(encoded, pieces, strict=True):
            yield part, counts, context

    def _loss(self, part: PromptBatch, context: Context) -> tuple[Tensor, int]:
        """Summed negative log-likelihood of a piece, and its number of tokens."""
        targets = self.policy.targets(context, part.texts)
        tokens, keep = targets.tokens.flatten(0, 1), targets.keep.flatten(0, 1)
        hidden = self.policy.hidden(context, targets)
        scored = token_log_probs(hidden, self.policy.head, tokens, keep, chunk_size=self.chunk_size)
        return -scored.log_probs.sum(), int(keep.sum())
