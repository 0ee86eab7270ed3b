"""Encoder-decoder policies whose encoder makes as many frames as a clip is long; the decoder's attention is masked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_audiorl.models.decoding.clips import (
    check_clips,
    clips_of,
    durations_of,
    padded_rows,
)
from lightning_audiorl.models.decoding.encoder_decoder import EncoderDecoderPolicy, MaskedContext
from lightning_audiorl.models.decoding.hotwords import refuse_hotwords
from lightning_audiorl.models.decoding.shared_clip import hand_on_clip_rows
from lightning_audiorl.models.encoder_cache import EncoderCache
from lightning_audiorl.models.finetune import Finetune, Parts
from lightning_audiorl.types import PromptBatch, Utterance


class UnevenClipsPolicy(EncoderDecoderPolicy):
    """What such families share.

    A family says which clips it takes (`min_samples`, `max_duration_s`), what its encoder makes of them (`hear`), what
    its decoder begins with (`prompt_tokens`), and what a plan traces (`example_features`).

    Attributes:
        min_samples: of the shortest clip.
        max_duration_s: of the longest clip.
        no_hotwords: why no row may have any.
    """

    default_lora_targets = ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2")
    no_hotwords: ClassVar[str] = "its decoder begins with control tokens alone; leave them out"
    min_samples: int
    max_duration_s: float

    def _make_ready(
        self, finetune: Finetune | None, encoder_cache: EncoderCache | None = None
    ) -> None:
        super()._make_ready(finetune, encoder_cache)
        hand_on_clip_rows(self.roles.layers)

    # --- its modules

    @property
    def roles(self) -> Parts:
        inner = self.model.model
        return Parts(
            encoder=[inner.encoder],
            projector=[],
            backbone=inner.decoder,
            layers=inner.decoder.layers,
            final=[inner.decoder.norm, self.model.proj_out],
        )

    @property
    def output(self) -> nn.Module:
        return self.model.proj_out

    @property
    def extractor(self) -> Any:
        """The processor's feature extractor."""
        return self.processor.feature_extractor

    # --- clips

    @property
    def clip_span_s(self) -> tuple[float, float]:
        return self.min_samples / self.extractor.sampling_rate, self.max_duration_s

    @abstractmethod
    def hear(self, clips: Sequence[Tensor], device: torch.device) -> list[Tensor]:
        """What the encoder makes of clips [num_samples]: [F, E] of each, without padding."""

    @abstractmethod
    def prompt_tokens(self, row: Utterance) -> list[int]:
        """What the decoder begins with: of one length for all rows.

        Raises:
            ValueError: for a language that the model does not know, naming the row.
        """

    def encode(self, batch: PromptBatch) -> MaskedContext:
        rate = self.extractor.sampling_rate
        longest = int(self.max_duration_s * rate)
        check_clips(batch, type(self).__name__, rate, self.min_samples, longest)
        refuse_hotwords(batch.rows, type(self).__name__, self.no_hotwords)
        device = batch.waveform.device
        tokens = torch.tensor([self.prompt_tokens(row) for row in batch.rows], device=device)

        if self.encoder_cache is None:
            outputs = self._heard(clips_of(batch), device)
        else:
            outputs = self._kept_outputs(batch, lambda clips: self._heard(clips, device))
        features, keep = padded_rows(outputs)
        return MaskedContext(batch.ids, durations_of(batch), features, tokens, keep)

    def _heard(self, clips: Sequence[Tensor], device: torch.device) -> list[Tensor]:
        with torch.set_grad_enabled(self.finetune.encoder and torch.is_grad_enabled()):
            outputs = self.hear(clips, device)
        self.num_encoded += len(clips)
        return outputs

    @abstractmethod
    def example_features(self, num_prompts: int, num_samples: int) -> Tensor:
        """[B, F, E], what `hear` makes of clips of one length; the values do not count."""

    @property
    @abstractmethod
    def num_prompt_tokens(self) -> int:
        """Of `prompt_tokens`, for a plan, which has no tokenizer."""

    def example_context(
        self, num_prompts: int, seconds: float, text_tokens: int | None = None
    ) -> MaskedContext:
        num_samples = int(seconds * 16_000)
        if num_samples < self.min_samples or seconds > self.max_duration_s:
            raise ValueError(
                f"{seconds} s of audio: {type(self).__name__} takes at most {self.max_duration_s:g} s"
            )
        features = self.example_features(num_prompts, num_samples)
        keep = torch.ones(features.shape[:2], dtype=torch.bool)
        tokens = torch.zeros(num_prompts, self.num_prompt_tokens, dtype=torch.long)
        ids = [str(number) for number in range(num_prompts)]
        return MaskedContext(ids, [seconds] * num_prompts, features, tokens, keep)
