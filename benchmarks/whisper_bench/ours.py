"""A GRPO step on a Whisper through this library and Lightning's Trainer, on command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from time import process_time
from typing import Any

import torch
from grpo_bench.driver import Driver
from lightning import Callback, Trainer
from torch.utils.data import DataLoader, IterableDataset

from lightning_audiorl.algorithms import GRPO, Optim
from lightning_audiorl.models import EncoderCache, WhisperPolicy
from lightning_audiorl.models.finetune import Finetune
from lightning_audiorl.strategies.phases import Phase, PhaseClock, PhaseHook
from lightning_audiorl.types import Decoding, PromptBatch
from whisper_bench.case import WhisperCase, batches, optimizer_of, reward_mix


class _CpuClock(PhaseClock):
    """Knows the CPU seconds of each phase, too: the machine may be shared."""

    def __init__(self) -> None:
        super().__init__()
        self.cpu_seconds: dict[str, float] = {}

    @contextmanager
    def enter(self, name: Phase, strategy: PhaseHook | None = None) -> Iterator[None]:
        began = process_time()
        with super().enter(name, strategy):
            yield
        spent = self.cpu_seconds.get(name, 0.0)
        self.cpu_seconds[name] = spent + process_time() - began


class _Batches(IterableDataset[PromptBatch]):
    def __init__(self, case: WhisperCase) -> None:
        self.case = case

    def __iter__(self) -> Iterator[PromptBatch]:
        return batches(self.case)


class _Measured(Callback):
    """Takes a step when it is told to, and reports it."""

    def __init__(self, driver: Driver, clock: _CpuClock) -> None:
        self.driver = driver
        self.clock = clock
        self.encoded = 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._wait(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.encoded = pl_module.policy.num_encoded
        self.clock.cpu_seconds = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        metrics = pl_module.step_metrics
        rollout = pl_module.last_step.rollout
        self.driver.report(
            phases=self.clock.cpu_seconds,
            generated=int(rollout.keep.sum()),
            longest=rollout.tokens.shape[-1],
            completions=rollout.finished.numel(),
            encoder_rows=pl_module.policy.num_encoded - self.encoded,
            metrics={name: metrics[name] for name in ("loss", "kl", "reward/mean")},
        )
        self._wait(trainer)

    def _wait(self, trainer: Trainer) -> None:
        if not self.driver.wait():
            trainer.should_stop = True


def make_module(case: WhisperCase, policy: WhisperPolicy) -> GRPO:
    """GRPO as the case wants it."""
    return GRPO(
        policy,
        num_steps=100_000,
        optim=Optim(optimizer=partial(optimizer_of, case)),
        rewards=reward_mix(),
        group_size=case.group_size,
        decoding=Decoding(
            max_new_tokens=case.max_new_tokens, min_cap=case.max_new_tokens, tokens_per_second=0.0
        ),
        beta=case.beta,
        # The other side does not measure the reference texts.
        reference_logprob_every_n_steps=0,
        seed=case.seed,
    )


def make_policy(case: WhisperCase, keeps: int) -> WhisperPolicy:
    """A Whisper whose decoder trains.

    Args:
        case: what is measured.
        keeps: batches whose encoder outputs are kept, as from an epoch before; 0 keeps none of any batch.
    """
    cache = EncoderCache() if keeps else None
    policy = WhisperPolicy(case.model, Finetune(projector=False), encoder_cache=cache)
    with torch.no_grad():
        for batch in islice(batches(case), keeps):
            policy.encode(batch)
    return policy


def serve(case: WhisperCase, driver: Driver, keeps: int = 0) -> None:
    """Take steps until the driver is told to stop; ``keeps`` as of `make_policy`."""
    module = make_module(case, make_policy(case, keeps))
    clock = _CpuClock()
    module.clock = clock
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        callbacks=[_Measured(driver, clock)],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, DataLoader(_Batches(case), batch_size=None))
