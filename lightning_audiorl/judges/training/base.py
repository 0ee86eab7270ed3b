"""What the training of every judge shares: a plain LightningModule over the batches of `AsrDataModule`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import resample

from lightning_audiorl.checks import check_count, check_number
from lightning_audiorl.codecs.base import Codec
from lightning_audiorl.codecs.network_training import (
    adamw_with_cosine,
    stop_if_finished,
    stop_when_done,
    tell_data_position,
)
from lightning_audiorl.finite import FiniteWeights
from lightning_audiorl.judges.models.networks import JudgeNetwork
from lightning_audiorl.judges.training.vocoded import vocoded
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

    Attributes:
        metrics: of the last validation by "<set>/<metric>"; the written config.json has those of the last step.
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
        shares_fit = all(share >= 0 for share in shares) and sum(shares) <= 1

        name = type(self).__name__
        check_count(f"{name}.num_steps", num_steps, at_least=1)
        check_number(f"{name}.lr", lr, above=0)
        check_count(f"{name}.warmup_steps", warmup_steps)
        check_number(f"{name}.clip_norm", clip_norm, above=0, infinite=True)
        if not shares_fit:
            raise ValueError(
                f"{name}: want vocoded_probability and codec_probability at least 0 and together at most 1; got "
                f"{shares}"
            )
        if not 1 <= vocoded_mels[0] <= vocoded_mels[1]:
            raise ValueError(
                f"{type(self).__name__}.vocoded_mels: want 1 <= low <= high; got {vocoded_mels}"
            )

        self.network = network
        self.codec = None if codec is None else codec.freeze()
        self.codec_probability = codec_probability
        self.vocoded_probability = vocoded_probability
        self.vocoded_mels = vocoded_mels

        self.num_steps = num_steps
        self.folder = folder
        self.lr = lr
        self.warmup_steps = warmup_steps
        self.clip_norm = clip_norm
        self.seed = seed

        self.metrics: dict[str, float] = {}
        self._metrics_step = -1

    @abstractmethod
    def loss(
        self,
        waveform: Tensor,
        num_samples: Tensor,
        rows: Sequence[Utterance],
    ) -> Tensor:
        """Mean loss of [B, S] clips at the network's rate."""

    def inputs(self, batch: PromptBatch, augmented: bool = False) -> tuple[Tensor, Tensor]:
        """The batch's clips at the network's rate [B, S] and their lengths [B].

        ``augmented`` sends some through mel bands and some through the codec; without it all go through the codec,
        where there is one.
        """
        waves = []
        for wave, length, row in zip(
            batch.waveform, batch.num_samples.tolist(), batch.rows, strict=True
        ):
            waves.append(self._clip(wave[:length], batch.sample_rate_hz, row, augmented))
        lengths = torch.tensor([len(wave) for wave in waves], device=batch.waveform.device)
        return pad_sequence(waves, batch_first=True), lengths

    def _clip(
        self,
        clip: Tensor,
        rate_hz: int,
        row: Utterance,
        augmented: bool,
    ) -> Tensor:
        """One clip [num_samples] as the network hears it."""
        wanted_hz = self.network.sample_rate_hz
        chance, size = keyed_uniform(2, "vocoded", self.seed, self.global_step, row.id).tolist()

        # One draw decides: its upper end is for the codec, its lower end for mel bands, the rest stays as recorded.
        if self.codec is not None and (not augmented or chance >= 1 - self.codec_probability):
            return _through(self.codec, clip, rate_hz, wanted_hz)
        clip = resample(clip, rate_hz, wanted_hz)
        if augmented and chance < self.vocoded_probability:
            low, high = self.vocoded_mels
            num_mels = low + int(size * (high - low + 1))
            clip = vocoded(clip, wanted_hz, num_mels)
        return clip

    def on_train_start(self) -> None:
        """A finished run that is resumed takes no further step."""
        stop_if_finished(self, self.num_steps)

    def training_step(self, batch: PromptBatch, batch_idx: int) -> Tensor:
        """The loss on one batch."""
        # Dropout draws from the global generator; keyed by the step, a resumed run draws the same.
        torch.manual_seed(key_to_seed("judge dropout", self.seed, self.global_step))
        loss = self.loss(*self.inputs(batch, augmented=True), batch.rows)
        self.log("loss", loss.detach(), prog_bar=True, batch_size=len(batch))
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient."""
        nn.utils.clip_grad_norm_(self._trained(), self.clip_norm)

    def on_train_batch_end(self, *_: Any) -> None:
        """Say where the data stand, and end the run after ``num_steps``."""
        tell_data_position(self)
        stop_when_done(self, self.num_steps)

    def finish_validation(self, metrics: dict[str, float]) -> None:
        """Keep and log the metrics of a validation; a subclass calls it at the end of each."""
        self.metrics = metrics
        self._metrics_step = self.global_step
        logged = {f"val/{name}": value for name, value in metrics.items()}
        self.log_dict(logged, prog_bar=True)

    def on_train_end(self) -> None:
        """Write the network, with the metrics of the last step's validation where there was one."""
        folder = self.folder or str(Path(self.trainer.default_root_dir) / "judge")
        if self.trainer.is_global_zero:
            measured = self.metrics if self._metrics_step == self.global_step else {}
            self.network.save(folder, measured | {"steps": float(self.global_step)})

    def configure_callbacks(self) -> list[Callback]:
        """What ends a training before its network is lost to NaN."""
        return [FiniteWeights()]

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine decay, stepped with every batch."""
        return adamw_with_cosine(self._trained(), self.lr, self.warmup_steps, self.num_steps)

    def _trained(self) -> list[nn.Parameter]:
        """The network and what a subclass adds to it; the codec is frozen."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


def _through(codec: Codec, clip: Tensor, rate_hz: int, wanted_hz: int) -> Tensor:
    """[num_samples] at ``rate_hz`` through the codec and back, at ``wanted_hz``."""
    clip = resample(clip, rate_hz, codec.sample_rate_hz)
    num_samples = torch.tensor([len(clip)], device=clip.device)
    codes, lengths = codec.encode(clip[None], num_samples)
    waveform, _ = codec.decode(codes, lengths)
    again: Tensor = resample(waveform[0], codec.output_sample_rate_hz, wanted_hz)
    return again
