"""What is measured: the model, the rows, and the settings that both sides share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from lightning_audiorl.data import AsrDataModule, NonSpeech, Subset
from lightning_audiorl.rewards import Accuracy, Hallucination, RewardMix
from lightning_audiorl.text import LeaderboardNormaliser
from lightning_audiorl.types import PromptBatch

# Of a clip's window, which is also the longest clip that Whisper takes in one piece.
_WINDOW_S = 30.0


@dataclass(frozen=True)
class WhisperCase:
    """One GRPO step on a Whisper.

    Args:
        model: folder of the checkpoint, in Hugging Face layout.
        train: JSONL manifest of speech.
        num_prompts: B; half of the rows are non-speech of this library, in the mean.
        group_size: G.
        max_new_tokens: cap of every sample, the same on both sides.
        beta: weight of the KL penalty.
        lr: of AdamW, torch's fused kernel on both sides.
        seed: keys rows and draws.
    """

    model: str
    train: str
    num_prompts: int = 4
    group_size: int = 4
    max_new_tokens: int = 64
    beta: float = 0.04
    lr: float = 1e-5
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For a worker."""
        return asdict(self)


def batches(case: WhisperCase) -> Iterator[PromptBatch]:
    """A batch per step, the same on all sides. The first one is of a single clip: the step that warms up."""
    data = AsrDataModule(
        train=[
            Subset(case.train, share=0.5),
            Subset(NonSpeech(num_rows=64, seed=case.seed), share=0.5),
        ],
        batch_size=case.num_prompts,
        seed=case.seed,
        max_duration_s=_WINDOW_S,
        on_too_long="skip",
    )
    stream = iter(data.train_dataloader())
    first = next(stream)
    yield first.select([0])

    yield first
    yield from stream


def optimizer_of(case: WhisperCase, trained: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """The same on all sides."""
    return torch.optim.AdamW(trained, lr=case.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)


def reward_mix() -> RewardMix:
    """R1 and R2, numbers read alike in digits and in words."""
    normalisers = {"en": LeaderboardNormaliser()}
    return RewardMix(
        [Accuracy(floor=-1.0, normalisers=normalisers), Hallucination(normalisers=normalisers)]
    )
