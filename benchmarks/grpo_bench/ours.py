"""One GRPO step after another through Lightning's Trainer, on command: our way and the naive way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset

from grpo_bench.case import Case, prompt_texts, reward_of, words_of
from grpo_bench.driver import Driver
from grpo_bench.meters import StepCounter, TokenCounter, now
from grpo_bench.naive import NaiveFunAsrNano, NaiveTextLM
from lightning_audiorl.algorithms import GRPO, Optim
from lightning_audiorl.models import FunAsrNanoPolicy, TextLMPolicy, TinyFunAsrNano
from lightning_audiorl.rewards import Reward, RewardMix
from lightning_audiorl.serving import LocalEngine
from lightning_audiorl.types import Decoding, Hypothesis, PromptBatch, Utterance

_RATE_HZ = 16000


class CheapReward(Reward):
    """`reward_of` the text."""

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        return [reward_of(hypothesis.text) for hypothesis in hypotheses]


class Batches(Dataset[PromptBatch]):
    """A batch of new prompts for every step."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, step: int) -> PromptBatch:
        case = self.case
        num = max(1, int(case.audio_s * _RATE_HZ))
        wave = torch.zeros(case.num_prompts, num)
        if case.audio_s:
            wave = 0.1 * torch.randn(
                case.num_prompts, num, generator=torch.Generator().manual_seed(step)
            )
        rows = tuple(
            Utterance(f"step{step}/prompt{i}", (), "one", case.audio_s, extra={"prompt": text})
            for i, text in enumerate(prompt_texts(case, step))
        )
        return PromptBatch(wave, torch.full((case.num_prompts,), num), _RATE_HZ, rows)


class _Measured(Callback):
    """Takes a step when it is told to, and reports it."""

    def __init__(self, driver: Driver, case: Case) -> None:
        self.driver, self.case = driver, case
        self.optimizer_steps = StepCounter()
        self.tokens = TokenCounter(lambda: None)
        self.start = 0.0
        self.encoded = 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.optimizer_steps.watch(trainer.optimizers[0])
        self.tokens.phase = lambda: pl_module.clock.current
        layers = pl_module.policy.backbone.layers
        assert isinstance(layers, nn.ModuleList)
        self.tokens.watch(layers[0])
        self._wait(trainer)

    def _wait(self, trainer: Trainer) -> None:
        if not self.driver.wait():
            trainer.should_stop = True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.encoded = pl_module.policy.num_encoded
        self.start = now(self.driver.device)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        seconds = now(self.driver.device) - self.start
        figures = pl_module.step_metrics
        phases = {
            name.split("/")[1]: value
            for name, value in figures.items()
            if name.startswith("seconds/")
        }
        rollout = pl_module.last_step.rollout
        self.driver.report(
            seconds=seconds,
            phases=phases,
            lm_tokens=self.tokens.take(),
            prompts=rollout.tokens.shape[0],
            completions=int(rollout.tokens.shape[0] * rollout.tokens.shape[1]),
            generated=int(rollout.keep.sum()),
            optimizer_steps=self.optimizer_steps.take(),
            encoder_rows=pl_module.policy.num_encoded - self.encoded if self.case.audio_s else 0,
            figures={
                k: figures[k] for k in ("loss", "kl", "grad_norm", "reward/mean") if k in figures
            }
            | {
                k: v
                for k, v in figures.items()
                if k.startswith(("moving/", "resident_mib/", "peak_mib/"))
            },
        )
        self._wait(trainer)


def make_policy(case: Case, model: str, naive: bool) -> TextLMPolicy | FunAsrNanoPolicy:
    """The policy of a case; its stop token is not allowed, so that every completion runs to its cap."""
    if case.audio_s:
        frames = int(case.audio_s / 0.06) + 8
        spec = TinyFunAsrNano(
            tuple(words_of(case)),
            case.width,
            case.encoder_layers,
            case.layers,
            case.heads,
            frames,
            case.seed,
        )
        policy: FunAsrNanoPolicy | TextLMPolicy = (
            NaiveFunAsrNano(spec) if naive else FunAsrNanoPolicy(spec)
        )
    else:
        policy = NaiveTextLM(model) if naive else TextLMPolicy(model)
    policy.allowed[policy.stop_ids] = False
    return policy


def make_module(case: Case, policy: Any, **settings: Any) -> GRPO:
    """GRPO as the case wants it."""
    # No other side measures the reference texts in one step of ten.
    usual = {"reference_logprob_every_n_steps": 0, "engine": LocalEngine(copy_weights=True)}
    settings = usual | settings
    return GRPO(
        policy,
        num_steps=100_000,
        optim=Optim(lr=1e-6),
        rewards=RewardMix([CheapReward(1.0, "cheap")]),
        group_size=case.group_size,
        decoding=Decoding(
            max_new_tokens=case.new_tokens, min_cap=case.new_tokens, tokens_per_second=0.0
        ),
        beta=case.beta,
        micro_batch_size=0 if case.accumulate == 1 else max(1, case.num_prompts // case.accumulate),
        seed=case.seed,
        **settings,
    )


def serve(
    case: Case, model: str, driver: Driver, naive: bool = False, strategy: Any = "auto"
) -> None:
    """Take steps until the driver is told to stop."""
    module = make_module(case, make_policy(case, model, naive))
    trainer = Trainer(
        accelerator="gpu" if driver.device == "cuda" else "cpu",
        devices=1,
        strategy=strategy,
        max_epochs=1,
        logger=False,
        callbacks=[_Measured(driver, case)],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, DataLoader(Batches(case), batch_size=None))
