"""Training of a `TinyCodec`: the mel spectrogram through the codes and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule
from torch import Tensor

from lightning_audiorl.checks import check_count, check_number
from lightning_audiorl.codecs.base import valid
from lightning_audiorl.codecs.network_training import (
    adamw_with_cosine,
    stop_if_finished,
    stop_when_done,
    tell_data_position,
    val_set_name,
)
from lightning_audiorl.codecs.tiny import TinyCodec, digits_to_codes
from lightning_audiorl.finite import FiniteWeights
from lightning_audiorl.ops.randomness import keyed_uniform
from lightning_audiorl.types import PromptBatch


def random_crops(batch: PromptBatch, length: int, key: tuple[int | str, ...]) -> Tensor:
    """[B, length] one stretch of each clip, keyed by ``key`` and the row's id; silence fills up a shorter clip."""
    crops = batch.waveform.new_zeros(len(batch), length)
    for b, num in enumerate(batch.num_samples.tolist()):
        # Every start alike, the last one included.
        draw = keyed_uniform(1, "crop", *key, batch.ids[b]).item()
        start = int(draw * (max(0, num - length) + 1))
        crop = batch.waveform[b, start : min(num, start + length)]
        crops[b, : len(crop)] = crop
    return crops


def mel_errors(mel: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(mean absolute, mean squared) difference of two normalised log-mel spectrograms [B, M, F].

    Example:
        >>> mel_errors(torch.tensor([[[0.0, 2.0]]]), torch.zeros(1, 1, 2))
        (tensor(1.), tensor(2.))
    """
    difference = mel - target
    return difference.abs().mean(), difference.square().mean()


def perplexity(counts: Tensor) -> float:
    """exp of the entropy of code counts [V]: how many codes are in use, weighed by how often; 0 for no counts.

    Example:
        >>> round(perplexity(torch.tensor([5, 5, 0])), 6)
        2.0
    """
    if not counts.sum():
        return 0.0
    shares = counts[counts > 0].double() / counts.sum()
    return math.exp(-float((shares * shares.log()).sum()))


class CodecTraining(LightningModule):
    """AdamW on the difference of log-mel spectrograms before and after the codes; needs audio and no text.

    Logs ``loss`` and ``mel_l1`` while it trains, and for every validation set ``val/<set>/mel_l1`` (in units of the
    normalised log-mel), ``val/<set>/perplexity`` and ``val/<set>/codes_used``. At the end the codec is written as a
    folder for ``TinyCodec(folder)``.

    Args:
        codec: what trains.
        num_steps: batches; the learning rate ends there, and so does the run.
        folder: where the codec is written; None is ``codec`` in the run's folder.
        lr: peak learning rate, after the warm-up; it falls to 0 along a cosine.
        warmup_steps: of linear warm-up.
        crop_s: length of the stretch of each clip that is trained on, in seconds.
        squared: weight of the squared difference beside the absolute one.
        seed: keys the crops.
    """

    def __init__(
        self,
        codec: TinyCodec,
        num_steps: int,
        folder: str | None = None,
        lr: float = 2e-3,
        warmup_steps: int = 20,
        crop_s: float = 1.28,
        squared: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_count("CodecTraining.num_steps", num_steps, at_least=1)
        check_number("CodecTraining.lr", lr, above=0)
        check_count("CodecTraining.warmup_steps", warmup_steps)
        check_number("CodecTraining.crop_s", crop_s, above=0)
        check_number("CodecTraining.squared", squared, at_least=0)

        # A codec is frozen everywhere but here.
        self.codec = codec.requires_grad_(True).train()

        self.num_steps = num_steps
        self.folder = folder
        self.lr = lr
        self.warmup_steps = warmup_steps
        self.squared = squared
        self.seed = seed

        # Whole codes: a crop has no partial frame at its end.
        num_codes = max(1, round(crop_s * codec.frame_rate_hz))
        self.crop_samples = num_codes * codec.samples_per_code
        self._counts: dict[str, Tensor] = {}

    def on_train_start(self) -> None:
        """A finished run that is resumed takes no further step."""
        stop_if_finished(self, self.num_steps)

    def training_step(self, batch: PromptBatch, batch_idx: int) -> Tensor:
        """The loss on one random stretch of every clip."""
        self._check_rate(batch)
        crops = random_crops(batch, self.crop_samples, (self.seed, self.global_step))
        mel = self.codec.mels(crops)
        again = self.codec.mels_of(self.codec.digits(mel))

        absolute, square = mel_errors(again, mel)
        loss = absolute + self.squared * square
        logged = {"loss": loss.detach(), "mel_l1": absolute.detach()}
        self.log_dict(logged, prog_bar=True, batch_size=len(batch))
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Say where the data stand, and end the run after ``num_steps``."""
        tell_data_position(self)
        stop_when_done(self, self.num_steps)

    def on_validation_epoch_start(self) -> None:
        """Begin the counts of codes."""
        self._counts = {}

    def validation_step(
        self,
        batch: PromptBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Mel error over whole clips, weighed by their length, and which codes are used."""
        self._check_rate(batch)
        name = val_set_name(self, dataloader_idx)

        mel = self.codec.mels(batch.waveform)
        digits = self.codec.digits(mel)
        lengths = self.codec.num_codes(batch.num_samples)
        keep = valid(lengths, digits.shape[1])

        # A code covers several mel frames; frames behind a clip's end do not count.
        frames = keep.repeat_interleave(mel.shape[2] // digits.shape[1], dim=1)
        difference = (self.codec.mels_of(digits) - mel).abs().mean(1)
        error = difference[frames].mean()
        weight = int(frames.sum())
        self.log(
            f"val/{name}/mel_l1", error, batch_size=weight, add_dataloader_idx=False, prog_bar=True
        )

        codes = digits_to_codes(digits, self.codec.levels)[keep]
        counts = torch.bincount(codes, minlength=self.codec.cardinality).cpu()
        before = self._counts.get(name, torch.zeros_like(counts))
        self._counts[name] = before + counts

    def on_validation_epoch_end(self) -> None:
        """Log how many codes are in use."""
        for name, counts in self._counts.items():
            self.log(f"val/{name}/perplexity", perplexity(counts))
            self.log(f"val/{name}/codes_used", float((counts > 0).sum()))

    def on_train_end(self) -> None:
        """Freeze the codec and write it."""
        folder = self.folder or str(Path(self.trainer.default_root_dir) / "codec")
        self.codec.freeze()
        if self.trainer.is_global_zero:
            self.codec.save(folder)

    def configure_callbacks(self) -> list[Callback]:
        """What ends a training before its codec is lost to NaN."""
        return [FiniteWeights()]

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine decay, stepped with every batch."""
        return adamw_with_cosine(
            self.codec.parameters(), self.lr, self.warmup_steps, self.num_steps
        )

    def _check_rate(self, batch: PromptBatch) -> None:
        if batch.sample_rate_hz != self.codec.sample_rate_hz:
            raise ValueError(
                f"CodecTraining: the data are at {batch.sample_rate_hz} Hz and the codec at "
                f"{self.codec.sample_rate_hz} Hz; set sample_rate_hz of one of them"
            )
