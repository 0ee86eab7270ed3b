"""Policies whose language model reads a clip in its prompt, in the place of one placeholder for each audio frame."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from lightning_audiorl.fields import PerPrompt, Shape
from lightning_audiorl.languages import language_of
from lightning_audiorl.models.decoding.cached_prompt import PrefixContext
from lightning_audiorl.models.decoding.clips import (
    check_clips,
    clips_of,
    durations_of,
    padded_rows,
)
from lightning_audiorl.models.decoding.decoder_only import DecoderOnlyPolicy, Side
from lightning_audiorl.models.decoding.hotwords import (
    check_reached,
    check_room,
    checked_words,
    prompt_text,
    refusal,
)
from lightning_audiorl.models.decoding.tokens import padded
from lightning_audiorl.models.encoder_cache import plain_settings
from lightning_audiorl.models.finetune import Parts
from lightning_audiorl.models.loading import TokenizerOutline
from lightning_audiorl.types import PromptBatch, Utterance
from lightning_audiorl.weights.families import first_line
from lightning_audiorl.weights.tensors import WeightsError

# The chat template around the audio.
_USUAL_TEXT_TOKENS = 20


@dataclass(frozen=True)
class AudioContext(PrefixContext):
    """Encoder output of B clips and the tokens around them.

    Args:
        ids, durations_s: of the prompts.
        features: [B, F, E] encoder output, zero-padded on the right.
        keep: [B, F] bool.
        tokens: B prompts as token ids, one placeholder for each row that the projector makes.
    """

    features: Annotated[Tensor, Shape("B F E", pad="F", lengths="num_frames")]
    keep: Annotated[Tensor, Shape("B F", pad="F", lengths="num_frames")]
    tokens: PerPrompt[list[list[int]]]

    @property
    def num_frames(self) -> Tensor:
        """[B] frames of the encoder for each clip."""
        return self.keep.sum(-1)

    @property
    def prompt_lengths(self) -> list[int]:
        return [len(row) for row in self.tokens]


class AudioPromptPolicy(DecoderOnlyPolicy[AudioContext]):
    """What such families share: clips are encoded once, their projection runs behind that, where it may train.

    A family says how clips become features (`read`), what its encoder makes of them (`hear`), how that is projected
    (`num_places`, `project`), and how it is asked for a transcript (`request`).
    """

    # --- its modules

    @property
    def audio_tower(self) -> Any:
        """The encoder."""
        return self.model.model.audio_tower

    @property
    def projector(self) -> Any:
        """Maps what the encoder makes to the language model's embeddings."""
        return self.model.model.multi_modal_projector

    @property
    def roles(self) -> Parts:
        language_model = self.model.model.language_model
        return Parts(
            encoder=[self.audio_tower],
            projector=[self.projector],
            backbone=language_model,
            layers=language_model.layers,
            final=[language_model.norm, self.model.lm_head],
        )

    @property
    def embed(self) -> nn.Module:
        return self.model.model.language_model.get_input_embeddings()

    @property
    def output(self) -> nn.Module:
        return self.model.lm_head

    @property
    def extractor(self) -> Any:
        """The processor's feature extractor."""
        return self.processor.feature_extractor

    @property
    def audio_token_id(self) -> int:
        """The placeholder."""
        return self.model.config.audio_token_id

    # --- clips

    @property
    @abstractmethod
    def max_seconds(self) -> float:
        """Of the longest clip; by the configuration alone, so that a plan knows it, too."""

    @property
    def min_samples(self) -> int:
        """Of the shortest clip."""
        return 1

    @property
    def clip_span_s(self) -> tuple[float, float]:
        return self.min_samples / self.extractor.sampling_rate, self.max_seconds

    @abstractmethod
    def read(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features [B, ...] of clips [num_samples], as the family makes them of each by itself, and their keep mask."""

    @abstractmethod
    def hear(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder makes of `read`: [B, F, E], zero-padded on the right, and its keep mask [B, F]."""

    def num_places(self, keep: Tensor) -> list[int]:
        """Placeholders of each clip: rows that `project` makes of frames [B, F] that are kept."""
        return keep.sum(-1).tolist()

    @abstractmethod
    def project(self, features: Tensor, keep: Tensor) -> Tensor:
        """[N, D] of the language model, one row for each place, clip by clip; trainable."""

    def encode(self, batch: PromptBatch) -> AudioContext:
        rate = self.extractor.sampling_rate
        name = type(self).__name__
        check_clips(batch, name, rate, self.min_samples, int(self.max_seconds * rate))

        device = batch.waveform.device
        if self.encoder_cache is None:
            features, keep = self._encoder_output(clips_of(batch), device)
        else:
            kept = self._kept_outputs(batch, lambda clips: self._clip_outputs(clips, device))
            features, keep = padded_rows(kept)

        prompts = self._prompts(batch, self.num_places(keep))
        return AudioContext(batch.ids, durations_of(batch), features, keep, prompts)

    def _encoder_output(
        self, clips: Sequence[Tensor], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """[B, F, E] of B clips, computed together, and their keep mask [B, F]."""
        with torch.autocast("cpu", enabled=False):  # it goes through numpy, which has no bfloat16
            inputs, mask = self.read(clips)
        with torch.set_grad_enabled(self.finetune.encoder and torch.is_grad_enabled()):
            features, keep = self.hear(inputs.to(device), mask.to(device))
        self.num_encoded += len(clips)
        return features, keep

    def _clip_outputs(self, clips: Sequence[Tensor], device: torch.device) -> list[Tensor]:
        """[F, E] of each of some clips, computed together, without padding."""
        features, keep = self._encoder_output(clips, device)
        return [output[kept] for output, kept in zip(features, keep, strict=True)]

    def encoder_settings(self) -> dict[str, Any]:
        return {
            "encoder": plain_settings(self.audio_tower.config.to_dict()),
            "features": plain_settings(self.extractor.to_dict()),
        }

    @abstractmethod
    def example_inputs(self, num_prompts: int, seconds: float) -> tuple[Tensor, Tensor]:
        """What `read` makes of clips of one length; the features' values do not count."""

    def example_context(
        self, num_prompts: int, seconds: float, text_tokens: int | None = None
    ) -> AudioContext:
        if not 0 < seconds <= self.max_seconds:
            raise ValueError(
                f"{seconds} s of audio: {type(self).__name__} takes at most {self.max_seconds:g} s"
            )
        features, keep = self.hear(*self.example_inputs(num_prompts, seconds))

        num_text = _USUAL_TEXT_TOKENS if text_tokens is None else text_tokens
        text = [self.stop_ids[0]] * num_text
        tokens = [[self.audio_token_id] * num + text for num in self.num_places(keep)]
        ids = [str(number) for number in range(num_prompts)]
        return AudioContext(ids, [seconds] * num_prompts, features, keep, tokens)

    # --- prompts

    def request(self, lang: str) -> str:
        """The text of the family's own request for a transcript, with one placeholder.

        Args:
            lang: code of the language; the family may have no name for it, or no place.
        """
        raise NotImplementedError(f"{type(self).__name__}.request")

    def hotword_request(self, lang: str, words: Sequence[str]) -> str:
        """`request` with words that may be said, as the family is told them.

        Raises:
            ValueError: of a family without a place for them, which says so.
        """
        raise ValueError(
            "its request for a transcript has no place for words; leave `hotwords` out of the data"
        )

    def request_tokens(self, lang: str) -> list[int]:
        """`request` as tokens; a family whose request is no text has this alone."""
        return self.tokenizer.encode(self.request(lang), add_special_tokens=False)

    def check_request(self) -> None:
        """See that the chat template asks for a transcript of one clip.

        Raises:
            WeightsError: where it is missing, broken or has no place for the clip.
        """
        if isinstance(self.processor, TokenizerOutline):
            return
        source = self.start.source
        advice = "copy chat_template.jinja from the model that this one was made of"
        try:
            tokens = self.request_tokens("en")
        except Exception as error:
            raise WeightsError(
                f"{source}: its chat template is missing or broken ({first_line(error)}); {advice}"
            ) from error
        if tokens.count(self.audio_token_id) != 1:
            raise WeightsError(
                f"{source}: its chat template has not one place for the audio; {advice}"
            )

    def _prompts(self, batch: PromptBatch, num_places: Sequence[int]) -> list[list[int]]:
        """The request of each row as tokens, its placeholder repeated once for each place."""
        by_lang: dict[str, list[int]] = {}
        out = []
        for row, num in zip(batch.rows, num_places, strict=True):
            lang = language_of(row.lang)
            if row.hotwords:
                around = self._hotword_tokens(row, lang)
            else:
                if lang not in by_lang:
                    by_lang[lang] = self.request_tokens(lang)
                around = by_lang[lang]

            at = around.index(self.audio_token_id)
            out.append([*around[:at], *[self.audio_token_id] * num, *around[at + 1 :]])
        return out

    def _hotword_tokens(self, row: Utterance, lang: str) -> list[int]:
        """The request of a row with hotwords as tokens."""
        words = checked_words(row, self.tokenizer)
        try:
            text = self.hotword_request(lang, words)
        except ValueError as error:
            raise refusal(row, type(self).__name__, str(error)) from error
        check_reached(row, words, text, self.start.source)

        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        positions = self.model.config.get_text_config().max_position_embeddings
        check_room(row, len(words), len(tokens), positions // 4)
        return tokens

    def prompt_texts(self, context: AudioContext) -> list[str]:
        return [prompt_text(self.tokenizer, row, self.audio_token_id) for row in context.tokens]

    def prompt(self, context: AudioContext, side: Side) -> tuple[Tensor, Tensor]:
        # The projector may train: it runs here, behind the encoder's output that all passes share.
        audio = self.project(context.features, context.keep)

        ids, mask = padded(context.tokens, self.stop_ids[0], audio.device, side)
        is_audio = ids == self.audio_token_id
        # The placeholder may have no row in the embedding.
        embeds = self.embed(ids.masked_fill(is_audio, self.stop_ids[0]))
        places = is_audio[..., None].expand_as(embeds)
        return embeds.masked_scatter(places, audio.to(embeds.dtype)), mask
