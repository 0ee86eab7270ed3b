"""One RL step in a blink: a tiny model, noise for audio, a reward that random hypotheses differ in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from lightning import Callback, LightningDataModule, Trainer
from lightning.pytorch.loggers import Logger
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from lightning_audiorl.algorithms import GRPO, AudioRLModule, Optim
from lightning_audiorl.models import Finetune, FunAsrNanoPolicy, TinyFunAsrNano
from lightning_audiorl.rewards import Reward, RewardMix
from lightning_audiorl.types import Decoding, Hypothesis, PromptBatch, Utterance

TINY = TinyFunAsrNano(width=32, encoder_layers=1, lm_layers=1, heads=2)
SHORT = Decoding(max_new_tokens=6)
RATE_HZ = 16000

#: The ways to train that contracts must hold in.
FINETUNES = {
    "all": Finetune(),
    "lora": Finetune(projector=False, lm="lora", lora_rank=4),
    "projector": Finetune(lm="none"),
}


def make_policy(finetune: Finetune | None = None) -> FunAsrNanoPolicy:
    return FunAsrNanoPolicy(TINY, finetune)


def make_batch(
    durations_s: Sequence[float] = (0.4, 0.9, 0.25), names: str = "abcdefgh"
) -> PromptBatch:
    """Noise of given lengths, another one for each name; texts of one, two, ... words."""
    waves, rows = [], []
    for number, (name, seconds) in enumerate(zip(names, durations_s, strict=False)):
        generator = torch.Generator().manual_seed(ord(name))
        waves.append(0.1 * torch.randn(int(RATE_HZ * seconds), generator=generator))
        rows.append(
            Utterance(name, (), " ".join(["one", "two", "three"][: number % 3 + 1]), seconds)
        )
    num_samples = torch.tensor([len(wave) for wave in waves])
    return PromptBatch(pad_sequence(waves, batch_first=True), num_samples, RATE_HZ, tuple(rows))


class Judge(Reward):
    """Whatever ``answer`` says of each text; by default how many letters it has."""

    def __init__(
        self, answer: Callable[[str], float] = len, weight: float = 1.0, name: str = "judge"
    ) -> None:
        super().__init__(weight, name)
        self.answer = answer

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        return [float(self.answer(hypothesis.text)) for hypothesis in hypotheses]


def make_grpo(policy: FunAsrNanoPolicy | None = None, *rewards: Reward, **settings: Any) -> GRPO:
    """GRPO that keeps no figure back: gradients unclipped, learning rate constant."""
    settings = {
        "num_steps": 1,
        "rewards": RewardMix(list(rewards) or [Judge()]),
        "group_size": 4,
        "decoding": SHORT,
        "beta": 0.1,
        "optim": Optim(lr=1e-3, max_grad_norm=0.0),
    } | settings
    return GRPO(policy or make_policy(), **settings)


class Recorder(Callback):
    """Gradients at every optimiser step, figures and weights after every RL step.

    Attributes:
        gradients: by parameter name, one dict per optimiser step.
        before: trainable tensors that those gradients are of.
        lrs: learning rate of every optimiser step.
        metrics: one dict per RL step.
        weights: trainable tensors, one dict per RL step.
    """

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.before: list[dict[str, Tensor]] = []
        self.lrs: list[float] = []
        self.metrics: list[dict[str, float]] = []
        self.weights: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        named = pl_module.policy.trainable().items()
        self.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})
        self.before.append(trainable(pl_module.policy))
        self.lrs.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self.metrics.append(dict(pl_module.step_metrics))
        self.weights.append(trainable(pl_module.policy))

    def gradient(self, step: int = 0) -> Tensor:
        """All gradients of one optimiser step as one vector."""
        return flat(self.gradients[step])


def flat(tensors: dict[str, Tensor]) -> Tensor:
    """All of them as one vector, in the order of their names."""
    return torch.cat([tensor.flatten() for _, tensor in sorted(tensors.items())])


def trainable(policy: Any) -> dict[str, Tensor]:
    """A copy of the tensors that train."""
    return {name: p.detach().clone() for name, p in policy.trainable().items()}


def fit(
    module: AudioRLModule,
    batches: Iterable[PromptBatch] | None = None,
    *callbacks: Callback,
    logger: Logger | bool = False,
    ckpt_path: str | None = None,
    datamodule: LightningDataModule | None = None,
    **settings: Any,
) -> Recorder:
    """Train on the batches (or the data module's) with Lightning's Trainer on the CPU; returns what was recorded."""
    recorder = Recorder()
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    settings = {"devices": 1} | quiet | settings
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=logger, callbacks=[recorder, *callbacks], **settings
    )
    if datamodule is not None:
        trainer.fit(module, datamodule=datamodule, ckpt_path=ckpt_path)
        return recorder
    batches = [make_batch() for _ in range(module.num_steps)] if batches is None else list(batches)
    trainer.fit(module, DataLoader(batches, batch_size=None), ckpt_path=ckpt_path)  # type: ignore[arg-type]
    return recorder
