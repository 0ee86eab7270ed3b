"""Supervised finetuning on reference texts: the warm start, and the control of every RL figure."""

from __future__ import annotations

from typing import Any

import torch

from lightning_audiorl.algorithms.base import AudioRLModule
from lightning_audiorl.ops import key_to_seed, token_log_probs
from lightning_audiorl.types import PromptBatch


class SFT(AudioRLModule):
    """Mean negative log-likelihood of the reference tokens, stop token included.

    Args:
        micro_batch_size: prompts per forward and backward pass; 0 takes the whole batch at once.
        chunk_size: positions per call of the head (0 = all at once).
        kwargs: see `AudioRLModule`.
    """

    def __init__(self, *args: Any, micro_batch_size: int = 0, chunk_size: int = 0, **kwargs: Any) -> None:
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
        total, num_tokens = 0.0, 0
        for piece in pieces:
            part = batch if len(pieces) == 1 else batch.select(piece)
            with self.phase("encode"):
                context = self.policy.encode(part)
            with self.phase("update"):
                targets = self.policy.targets(context, part.texts)
                tokens, keep = targets.tokens.flatten(0, 1), targets.keep.flatten(0, 1)
                hidden = self.policy.hidden(context, targets)
                scored = token_log_probs(hidden, self.policy.head, tokens, keep, chunk_size=self.chunk_size)
                loss = -scored.log_probs.sum()
                self.manual_backward(loss)
            total += float(loss.detach())
            num_tokens += int(keep.sum())
        with self.phase("update"):
            for parameter in self.policy.trainable().values():
                if parameter.grad is not None:
                    parameter.grad.div_(num_tokens)
            stepped = self.optimizer_step_clipped()
        loss_value = total / num_tokens
        self.log("loss", loss_value, prog_bar=True, logger=False)
        perplexity = float(torch.tensor(loss_value).exp())
        self.finish_step({"loss": loss_value, "tokens": num_tokens, "perplexity": perplexity} | stepped)
