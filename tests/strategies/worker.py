"""Short runs under some strategy, in as many processes as asked for; rank 0 writes what came out.

python -m tests.strategies.worker 2 '[{"strategy": "phase_ddp", "out": "...", ...}, ...]'
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningDataModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_audiorl.algorithms import GRPO, SFT, AudioRLModule, DiffRO, GRPODiffRO, Optim
from lightning_audiorl.losses.diffro.filters import Candidates, DiffroFilter
from lightning_audiorl.models import TextLMPolicy, WhisperPolicy
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy
from lightning_audiorl.rewards import DurationConsistency, RewardMix, SpeechAccuracy
from lightning_audiorl.types import Decoding, Hypothesis, PromptBatch
from tests import speech
from tests.algorithms.speaking import Codes, make_module
from tests.algorithms.tiny import FINETUNES, Judge, make_policy
from tests.models.families import SPECS, batch_of, finetune_of
from tests.models.families import make as make_lively
from tests.serving.fake import FakeEngine

NAMES = "abcd"
DECODING = Decoding(tokens_per_second=8.0, min_cap=6, max_new_tokens=12)


def whole(tensor: Tensor) -> Tensor:
    value = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return value.detach().clone()


class Batches(IterableDataset[PromptBatch]):
    """The same global batch at every step, cut into contiguous parts for the ranks."""

    def __init__(self, num_steps: int, spoil: bool) -> None:
        self.num_steps, self.spoil = num_steps, spoil

    def __iter__(self) -> Iterator[PromptBatch]:
        ready = torch.distributed.is_initialized()
        rank, size = (
            (torch.distributed.get_rank(), torch.distributed.get_world_size()) if ready else (0, 1)
        )
        rows = list(range(len(NAMES)))[len(NAMES) * rank // size : len(NAMES) * (rank + 1) // size]
        for _ in range(self.num_steps):
            lengths = (
                [0.01] * len(NAMES) if self.spoil and rank == 1 else None
            )  # too short for the model
            yield batch_of(list(NAMES), lengths).select(rows)


class Refilling(LightningDataModule):
    """The batches, and for dynamic sampling prompts that no rank has; rank 0 is offered others than the rest."""

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        self.num_steps = num_steps

    def train_dataloader(self) -> DataLoader[PromptBatch]:
        return DataLoader(Batches(self.num_steps, spoil=False), batch_size=None)

    def refill(self, step: int, attempt: int, num_prompts: int) -> PromptBatch:
        # Rank 0 lacks nothing where there are two: what one process takes is what rank 1 is offered.
        is_idle = torch.distributed.is_initialized() and torch.distributed.get_rank() == 0
        first = "ghij" if is_idle else "efcd"
        return batch_of(list(first[:num_prompts]))


def said(hypothesis: Hypothesis) -> str:
    """The text; of a policy that speaks its codes and what each judge heard in them."""
    speech = hypothesis.speech
    return (
        hypothesis.text
        if speech is None
        else f"{speech.codes.tolist()} {dict(hypothesis.transcripts)}"
    )


class Witness(Callback):
    """Gradients at every optimiser step, hypotheses, figures and weights after every RL step; whole tensors."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.weights: list[dict[str, Tensor]] = []
        self.metrics: list[dict[str, float]] = []
        self.texts: list[dict[str, list[str]]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        named = pl_module.policy.trainable().items()
        self.gradients.append({name: whole(p.grad) for name, p in named if p.grad is not None})

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self.metrics.append(dict(pl_module.step_metrics))
        self.weights.append({name: whole(p) for name, p in pl_module.policy.trainable().items()})
        step = getattr(pl_module, "last_step", None)
        own = (
            {}
            if step is None
            else {group[0].row.id: [said(h) for h in group] for group in step.groups}
        )
        ranks: list[Any] = [own]
        if trainer.world_size > 1:
            ranks = [None] * trainer.world_size
            torch.distributed.all_gather_object(ranks, own)
        self.texts.append({name: texts for part in ranks for name, texts in part.items()})


class Only(DiffroFilter):
    """Keeps the samples of some prompts."""

    def __init__(self, names: str) -> None:
        self.names = names

    def keep(self, candidates: Candidates) -> Tensor:
        kept = torch.tensor([row.id in self.names for row in candidates.rows])
        return kept[:, None].expand_as(candidates.scores.valid)


def make(settings: dict[str, Any]) -> AudioRLModule:
    if "keep" in settings:
        kind: Any = {"DiffRO": DiffRO, "GRPODiffRO": GRPODiffRO}[settings["algorithm"]]
        filters, rewards = [Only(settings["keep"])], RewardMix([Codes()])
        how = {"num_steps": settings["num_steps"], "beta": 0.1, "micro_batch_size": 1}
        module: AudioRLModule = make_module(kind, diffro_filters=filters, rewards=rewards, **how)
        return module
    family, mode = settings.get("family", "fun_asr_nano"), settings.get("mode", "all")
    policy: CachedPromptPolicy
    if family == "whisper":
        policy = WhisperPolicy(SPECS[family], finetune_of(family, mode))
    elif family == "text_lm":
        policy = TextLMPolicy(SPECS[family], finetune_of(family, mode))
    elif family == "speech_lm":
        policy = make_lively(family, mode)
    else:
        policy = make_policy(FINETUNES[mode])
    common: dict[str, Any] = {
        "num_steps": settings.get("num_steps", 2),
        "optim": Optim(lr=1e-3, max_grad_norm=settings.get("max_grad_norm", 0.5)),
    }
    if "engine" in settings:
        common["engine"] = FakeEngine(**settings["engine"])
    if settings.get("algorithm") == "SFT":
        return SFT(policy, micro_batch_size=1, **common)
    judges = {"blind": BlindJudge, "flat": FlatJudge}
    rewards = RewardMix([judges.get(settings.get("judge", ""), Judge)()])
    if family == "speech_lm":
        with tempfile.TemporaryDirectory() as folder:
            judge = speech.judge(Path(folder))
            common["evaluation"] = speech.evaluation(Path(folder))
        rewards = RewardMix([SpeechAccuracy(judge, "exp"), DurationConsistency(0.5)])
    return GRPO(
        policy,
        rewards=rewards,
        group_size=4,
        decoding=DECODING,
        beta=0.1,
        micro_batch_size=settings.get("micro_batch_size", 1),
        max_tokens=settings.get("max_tokens", 0),
        max_refills=settings.get("max_refills", 0),
        **common,
    )


class FlatJudge(Judge):
    """Sees no difference between the samples of two prompts."""

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        return [0.0 if h.row.id in "cd" else float(len(h.text)) for h in hypotheses]


class BlindJudge(Judge):
    """Sees no difference between the samples of the last two prompts."""

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        return [float(len(h.text)) if h.row.id in "ab" else 0.0 for h in hypotheses]


class SaveAt(Callback):
    """A checkpoint after one RL step."""

    def __init__(self, rl_step: int, path: str) -> None:
        self.rl_step, self.path = rl_step, path

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.rl_step == self.rl_step:
            trainer.save_checkpoint(self.path)


def run(settings: dict[str, Any], devices: int = 1) -> dict[str, Any]:
    """Train; returns what was witnessed."""
    module, witness = make(settings), Witness()
    start = {name: p.detach().clone() for name, p in module.policy.trainable().items()}
    callbacks: list[Callback] = [witness]
    if "save" in settings:
        callbacks.append(SaveAt(settings["save_at"], settings["save"]))
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=settings.get("strategy", "auto"),
        max_epochs=1,
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if settings.get("max_refills"):
        data = Refilling(module.num_steps)
        trainer.fit(module, datamodule=data)
        return seen_by(witness, module, start)
    loader = DataLoader(
        Batches(settings.get("stop_at", module.num_steps), "spoil" in settings), batch_size=None
    )
    evaluated = (
        DataLoader(Batches(1, False), batch_size=None)
        if settings.get("family") == "speech_lm"
        else None
    )
    trainer.fit(module, loader, evaluated, ckpt_path=settings.get("ckpt_path"))
    return seen_by(witness, module, start)


def seen_by(witness: Witness, module: AudioRLModule, start: dict[str, Tensor]) -> dict[str, Any]:
    """What a run gave, in plain data."""
    names = ("gradients", "weights", "metrics", "texts")
    results = [one["results"] for one in module.evaluations]
    return {"start": start, "evaluations": results} | {
        name: getattr(witness, name) for name in names
    }


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for settings in json.loads(sys.argv[2]):
        seen = run(settings, int(sys.argv[1]))
        if int(os.environ.get("LOCAL_RANK", 0)) == 0:
            torch.save(seen, settings["out"])


if __name__ == "__main__":
    main()
