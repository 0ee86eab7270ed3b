"""Supervised finetuning on reference texts: the warm start, and the control of every RL result."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from lightning_audiorl.engine import EvalDecoding, Optim, RLModule
from lightning_audiorl.engine.distributed import equal_passes
from lightning_audiorl.engine.rollout import data_metrics
from lightning_audiorl.judges.base import Judge
from lightning_audiorl.losses import CrossEntropy, MicroBatch, Prepared
from lightning_audiorl.metrics import SetEvaluation
from lightning_audiorl.models.policy import Context, Policy
from lightning_audiorl.ops import key_to_seed
from lightning_audiorl.types import PromptBatch


class SFT(RLModule):
    """Mean negative log-likelihood of the reference tokens, stop token included.

    A step has no rollout: it encodes the batch in micro-batches of neighbouring durations, in train mode, and updates.
    The encoder may train.

    Args:
        policy: the model that trains.
        num_steps: steps of the run.
        micro_batch_size: prompts per forward and backward pass; 0 takes the whole batch at once.
        chunk_size: positions per call of the head; None keeps one chunk's logits small, 0 takes all at once.
        optim, eval_decodings, keywords, evaluation, judges, seed, log_every_n_steps, keep_context: see `RLModule`.
    """

    samples_from_policy = False

    def __init__(
        self,
        policy: Policy,
        num_steps: int,
        *,
        micro_batch_size: int = 0,
        chunk_size: int | None = None,
        optim: Optim | None = None,
        eval_decodings: dict[str, EvalDecoding] | None = None,
        keywords: list[str] | None = None,
        evaluation: SetEvaluation | None = None,
        judges: dict[str, Judge] | None = None,
        seed: int = 0,
        log_every_n_steps: int = 1,
        keep_context: bool = False,
    ) -> None:
        super().__init__(
            policy,
            num_steps,
            losses=[CrossEntropy()],
            micro_batch_size=micro_batch_size,
            chunk_size=chunk_size,
            optim=optim,
            eval_decodings=eval_decodings,
            keywords=keywords,
            evaluation=evaluation,
            judges=judges,
            seed=seed,
            log_every_n_steps=log_every_n_steps,
            keep_context=keep_context,
        )

    def training_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """One step over the batch: encode and update."""
        self.policy.train()  # a model from a folder comes in eval mode, without its dropout
        # Dropout draws from the global generator; keyed by the step, a resumed run draws the same.
        torch.manual_seed(key_to_seed("dropout", self.seed, self.rl_step))

        updater = self.updater()
        metrics = updater.accumulate(
            self.losses[0], Prepared(), self.supervised_micro_batches(batch)
        )
        with self.phase("update"):
            metrics |= updater.clip_and_step()
        metrics |= data_metrics(batch)

        self.show_progress(metrics)
        self.finish_step(metrics, weight=len(batch))

    def supervised_micro_batches(self, batch: PromptBatch) -> Iterator[MicroBatch]:
        """Pieces of neighbouring durations, each with its context and inside the phase update.

        All are encoded before the first update, unless the encoder trains: then each is encoded just before its own,
        so that one graph of the encoder is held at a time.
        """
        size = self.micro_batch_size or len(batch)
        by_duration = sorted(range(len(batch)), key=lambda i: int(batch.num_samples[i]))
        pieces = [by_duration[start : start + size] for start in range(0, len(batch), size)]
        passes = equal_passes(self.strategy, pieces)

        encoded: dict[int, Context] = {}
        encoder = self.policy.parts().get("encoder", [])
        trains_encoder = any(p.requires_grad for p in nn.ModuleList(encoder).parameters())
        if not trains_encoder:
            with self.phase("encode"):
                for number, (index, _) in enumerate(passes):
                    encoded[number] = self._encode(batch, index)

        for number, (index, counts) in enumerate(passes):
            if trains_encoder:
                with self.phase("encode"):
                    context = self._encode(batch, index)
            else:
                context = encoded.pop(number)

            with self.phase("update"):
                rows = tuple(batch.rows[i] for i in index)
                yield MicroBatch(index, rows, context, rollout=None, weight=float(counts))

    def _encode(self, batch: PromptBatch, index: list[int]) -> Context:
        whole = index == list(range(len(batch)))
        return self.policy.encode(batch if whole else batch.select(index))
