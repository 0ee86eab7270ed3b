"""What the training of every judge shares: a plain LightningModule over the batches of `AsrDataModule`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import resample

from lightning_audiorl.codecs.base import Codec
from lightning_audiorl.judges.networks import JudgeNetwork
from lightning_audiorl.judges.vocoded import vocoded
from lightning_audiorl.ops.randomness import key_to_seed, keyed_uniform
from lightning_audiorl.types import PromptBatch, Utterance


class JudgeTraining(LightningModule, ABC):
    """AdamW with warm-up and cosine decay; at the end the network is written as a folder for its judge.

    Args:
        network: what trains.
        num_steps: batches; the learning rate ends there, and so does the run.
        folder: where the network is written; None is ``judge`` in the run's folder.
        lr: peak learning rate.
        warmup_steps: of linear warm-up.
        vocoded_probability: share of training clips that go through mel bands and back (`vocoded`).
        vocoded_mels: fewest and most mel bands of these.
        codec: whose speech the judge is to hear; frozen, and not part of what is saved.
        codec_probability: share of training clips that go through ``codec`` and back. A validation with a codec is over
            clips that all do.
        clip_norm: largest norm of the gradient.
        seed: keys dropout and the draws of ``vocoded``.
    """

    def __init__(
        self,
        network: JudgeNetwork,
        num_steps: int,
        folder: str | None = None,
        lr: float = 2e-3,
        warmup_steps: int = 20,
        vocoded_probability: float = 0.3,
        vocoded_mels: tuple[int, int] = (20, 60),
        codec: Codec | None = None,
        codec_probability: float = 0.5,
        clip_norm: float = 5.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        shares = (vocoded_probability, codec_probability)
        if num_steps < 1 or lr <= 0 or min(shares) < 0 or sum(shares) > 1:
            raise ValueError(
                f"{type(self).__name__}: want num_steps >= 1, lr > 0, and vocoded_probability and codec_probability at "
                f"least 0 and together at most 1; got {num_steps}, {lr}, {shares}"
            )
        if not 1 <= vocoded_mels[0] <= vocoded_mels[1]:
            raise ValueError(f"{type(self).__name__}.vocoded_mels: want 1 <= low <= high; got {vocoded_mels}")
        self.network = network
        self.num_steps, self.folder, self.seed = num_steps, folder, seed
        self.lr, self.warmup_steps, self.clip_norm = lr, warmup_steps, clip_norm
        self.vocoded_probability, self.vocoded_mels = vocoded_probability, vocoded_mels
        self.codec = None if codec is None else codec.freeze()
        self.codec_probability = codec_probability
        #: Figures of the last validation by "<set>/<figure>"; the written config.json has those of the last step.
        self.figures: dict[str, float] = {}
        self._figures_step = -1

    @abstractmethod
    def loss(self, waveform: Tensor, num_samples: Tensor, rows: Sequence[Utterance]) -> Tensor:
        """Mean loss of [B, S] clips at the network's rate."""

    def heard(self, batch: PromptBatch, augmented: bool = False) -> tuple[Tensor, Tensor]:
        """The batch's clips at the network's rate [B, S] and their lengths [B].

        ``augmented`` sends some through mel bands and some through the codec; without it all go through the codec,
        where there is one.
        """
        rate_hz = self.network.sample_rate_hz
        waves = []
        for wave, length, row in zip(batch.waveform, batch.num_samples.tolist(), batch.rows, strict=True):
            clip = wave[:length]
            chance, size = keyed_uniform(2, "vocoded", self.seed, self.global_step, row.id).tolist()
            if self.codec is not None and (not augmented or chance >= 1 - self.codec_probability):
                waves.append(_through(self.codec, clip, batch.sample_rate_hz, rate_hz))
                continue
            clip = resample(clip, batch.sample_rate_hz, rate_hz)
            if augmented and chance < self.vocoded_probability:
                low, high = self.vocoded_mels
                clip = vocoded(clip, rate_hz, low + int(size * (high - low + 1)))
            waves.append(clip)
        lengths = torch.tensor([len(wave) for wave in waves], device=batch.waveform.device)
        return pad_sequence(waves, batch_first=True), lengths

    def on_train_start(self) -> None:
        """A finished run that is resumed takes no further step."""
        if self.global_step >= self.num_steps:
            self.trainer.should_stop = True

    def training_step(self, batch: PromptBatch, batch_idx: int) -> Tensor:
        """The loss on one batch."""
        # Dropout draws from the global generator; keyed by the step, a resumed run draws the same.
        torch.manual_seed(key_to_seed("judge dropout", self.seed, self.global_step))
        loss = self.loss(*self.heard(batch, augmented=True), batch.rows)
        self.log("loss", loss.detach(), prog_bar=True, batch_size=len(batch))
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient."""
        nn.utils.clip_grad_norm_([p for p in self.parameters() if p.requires_grad], self.clip_norm)

    def on_train_batch_end(self, *_: Any) -> None:
        """Say where the data stand, and end the run after ``num_steps``."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is not None and hasattr(datamodule, "next_step"):
            datamodule.next_step = self.global_step
        if self.global_step >= self.num_steps:
            self.trainer.should_stop = True

    def _finish_validation(self, figures: dict[str, float]) -> None:
        self.figures, self._figures_step = figures, self.global_step
        self.log_dict({f"val/{key}": value for key, value in figures.items()}, prog_bar=True)

    def _set_name(self, index: int) -> str:
        names = getattr(getattr(self.trainer, "datamodule", None), "val_names", None)
        return names[index] if names else f"set{index}"

    def on_train_end(self) -> None:
        """Write the network, with the figures of the last step's validation where there was one."""
        folder = self.folder or str(Path(self.trainer.default_root_dir) / "judge")
        if self.trainer.is_global_zero:
            measured = self.figures if self._figures_step == self.global_step else {}
            self.network.save(folder, measured | {"steps": float(self.global_step)})

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine decay, stepped with every batch."""
        optimizer = torch.optim.AdamW(
            [p for p in self.parameters() if p.requires_grad], lr=self.lr, betas=(0.9, 0.99), weight_decay=0.01
        )

        def factor(step: int) -> float:
            if step < self.warmup_steps:
                return (step + 1) / self.warmup_steps
            done = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _through(codec: Codec, clip: Tensor, rate_hz: int, wanted_hz: int) -> Tensor:
    """[num_samples] at ``rate_hz`` through the codec and back, at ``wanted_hz``."""
    clip = resample(clip, rate_hz, codec.sample_rate_hz)
    codes, lengths = codec.encode(clip[None], torch.tensor([len(clip)], device=clip.device))
    waveform, _ = codec.decode(codes, lengths)
    again: Tensor = resample(waveform[0], codec.output_sample_rate_hz, wanted_hz)
    return again
