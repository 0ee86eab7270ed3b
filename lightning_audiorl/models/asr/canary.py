"""Canary (arXiv 2509.14128): a FastConformer encoder, and a decoder that attends to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import (
    CanaryConfig,
    CanaryForConditionalGeneration,
    CanaryProcessor,
    ParakeetFeatureExtractor,
)
from transformers.models.canary.processing_canary import LANGUAGE_CODE_TO_NAME

from lightning_audiorl.languages import language_of
from lightning_audiorl.models.decoding.clips import (
    check_clips,
    clips_of,
    durations_of,
    padded_rows,
)
from lightning_audiorl.models.decoding.encoder_decoder import EncoderDecoderPolicy, MaskedContext
from lightning_audiorl.models.encoder_cache import EncoderCache, plain_settings
from lightning_audiorl.models.finetune import Finetune, Parts
from lightning_audiorl.models.loading import Family, TokenizerOutline, require_features
from lightning_audiorl.models.tiny_base import DIGIT_WORDS, TinySpec, keyed_weights, word_tokenizer
from lightning_audiorl.types import PromptBatch, Utterance
from lightning_audiorl.weights.families import first_line
from lightning_audiorl.weights.tensors import WeightsError

_RATE_HZ = 16_000
_HOP_SAMPLES = 160

# Two frames of the features, whose spread its extractor divides by.
_MIN_SAMPLES = 2 * _HOP_SAMPLES

# By our code, the one that the prompt has for it.
_CODES = {language_of(code): code for code in LANGUAGE_CODE_TO_NAME}

# Of the tiny model.
_CONTROL = (
    *("<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>", "<|en|>", "<|de|>"),
    *("<|pnc|>", "<|nopnc|>", "<|noitn|>", "<|notimestamp|>", "<|nodiarize|>"),
)
_CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'text' %}"
    "<|startofcontext|><|startoftranscript|><|emo:undefined|>"
    "<|{{ part['source_language'] }}|><|{{ part['target_language'] }}|>"
    "{% if part['punctuation'] %}<|pnc|>{% else %}<|nopnc|>{% endif %}<|noitn|><|notimestamp|><|nodiarize|>"
    "{% endif %}{% endfor %}{% endfor %}"
)


@dataclass(frozen=True)
class TinyCanary(TinySpec):
    """Sizes of a tiny `CanaryForConditionalGeneration`; the same seed gives the same weights.

    Args:
        words: the tokenizer's vocabulary, one token each.
        width: hidden size of encoder and decoder.
        encoder_layers, decoder_layers: numbers of layers.
        max_frames: longest input in 80 ms frames.
        num_mel_bins: of the features.
        max_positions: most decoder tokens, prompt included.
        seed: keys the initial weights.
    """

    words: tuple[str, ...] = tuple(DIGIT_WORDS)
    width: int = 128
    encoder_layers: int = 2
    decoder_layers: int = 2
    heads: int = 4
    max_frames: int = 512
    num_mel_bins: int = 40
    max_positions: int = 128
    seed: int = 0

    def build(self) -> tuple[CanaryForConditionalGeneration, CanaryProcessor]:
        tokenizer = word_tokenizer(self.words, _CONTROL)
        ends = {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        start = tokenizer.convert_tokens_to_ids(_CONTROL[0])

        config = CanaryConfig(
            encoder_config=self._encoder_config(),
            decoder_config=self._decoder_config(len(tokenizer)) | ends,
            vocab_size=len(tokenizer),
            decoder_start_token_id=start,
            **ends,
        )
        with keyed_weights(self):
            model = CanaryForConditionalGeneration(config)
        for name, value in {**ends, "decoder_start_token_id": start}.items():
            setattr(model.generation_config, name, value)

        extractor = ParakeetFeatureExtractor(feature_size=self.num_mel_bins)
        return model, CanaryProcessor(extractor, tokenizer, chat_template=_CHAT_TEMPLATE)

    def _encoder_config(self) -> dict[str, Any]:
        return {
            "model_type": "parakeet_encoder",
            "hidden_size": self.width,
            "num_hidden_layers": self.encoder_layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 2 * self.width,
            "num_mel_bins": self.num_mel_bins,
            "subsampling_conv_channels": 16,
            "max_position_embeddings": self.max_frames,
            "scale_input": False,
            "layerdrop": 0.0,
        }

    def _decoder_config(self, vocab_size: int) -> dict[str, Any]:
        return {
            "vocab_size": vocab_size,
            "hidden_size": self.width,
            "intermediate_size": 2 * self.width,
            "num_hidden_layers": self.decoder_layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "head_dim": self.width // self.heads,
            "max_position_embeddings": self.max_positions,
        }


class CanaryPolicy(EncoderDecoderPolicy):
    """`CanaryForConditionalGeneration` behind the policy interface: transcription in the language of the row.

    Args:
        init_from: a folder or hub id in Hugging Face layout, a Lightning checkpoint of ours, or the sizes of a tiny
            random model.
        finetune: what trains; Canary has no projector, its cross-attention belongs to the decoder ("lm"). LoRA without
            ``lora_targets`` goes to both attentions and the feed-forward layers of the decoder.
        dtype: of the weights, and of an export ("float32", "bfloat16"). Adapters are float32 on any; a fit refuses
            other trained weights in less.
        revision: hub revision.
        encoder_cache: keeps the encoder's outputs of clips that come again; wants a frozen encoder.
        punctuation: whether the prompt asks for punctuation and capitals.
    """

    family = Family(TinyCanary, CanaryForConditionalGeneration, CanaryProcessor)
    default_lora_targets = ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2")

    def __init__(
        self,
        init_from: str | TinyCanary,
        finetune: Finetune | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        encoder_cache: EncoderCache | None = None,
        punctuation: bool = True,
    ) -> None:
        super().__init__()
        self.punctuation = punctuation
        self._load(init_from, dtype, revision)
        self._check_processor()
        self._make_ready(finetune, encoder_cache)

    def _check_processor(self) -> None:
        """See at once that the processor fits the model, and that its template asks for a transcript."""
        if isinstance(self.processor, TokenizerOutline):
            return
        source = self.start.source
        extractor = self.processor.feature_extractor
        require_features(
            source,
            sampling_rate=(extractor.sampling_rate, _RATE_HZ),
            feature_size=(extractor.feature_size, self.model.config.encoder_config.num_mel_bins),
        )

        advice = "copy chat_template.jinja from the model that this one was made of"
        try:
            tokens = self._request("en")
        except Exception as error:
            raise WeightsError(
                f"{source}: its chat template is missing or broken ({first_line(error)}); {advice}"
            ) from error

        if tokens[:1] != [self.model.generation_config.decoder_start_token_id]:
            raise WeightsError(
                f"{source}: what its chat template asks does not begin as its generation_config.json says "
                f"(decoder_start_token_id); {advice}"
            )

    # --- its modules

    @property
    def audio_tower(self) -> Any:
        """The encoder."""
        return self.model.model.encoder

    @property
    def roles(self) -> Parts:
        decoder = self.model.model.decoder
        return Parts(
            encoder=[self.audio_tower],
            projector=[],
            backbone=decoder,
            layers=decoder.layers,
            final=[decoder.norm, self.model.proj_out],
        )

    @property
    def output(self) -> nn.Module:
        return self.model.proj_out

    @property
    def max_positions(self) -> int:
        return self.model.config.decoder_config.max_position_embeddings

    def train(self, mode: bool = True) -> Self:
        """Train mode but for the encoder: its batch norm would move, also where the encoder is frozen."""
        super().train(mode)
        self.audio_tower.eval()
        return self

    # --- clips

    @property
    def max_seconds(self) -> float:
        """Of the longest clip that the encoder has positions for."""
        config = self.model.config.encoder_config
        return config.max_position_embeddings * config.subsampling_factor * _HOP_SAMPLES / _RATE_HZ

    @property
    def clip_span_s(self) -> tuple[float, float]:
        return _MIN_SAMPLES / _RATE_HZ, self.max_seconds

    def encode(self, batch: PromptBatch) -> MaskedContext:
        check_clips(batch, "CanaryPolicy", _RATE_HZ, _MIN_SAMPLES, int(self.max_seconds * _RATE_HZ))
        device = batch.waveform.device
        tokens = torch.tensor([self._prompt(row) for row in batch.rows], device=device)

        if self.encoder_cache is None:
            features, keep = self._encoder_output(clips_of(batch), device)
        else:
            kept = self._kept_outputs(batch, lambda clips: self._clip_outputs(clips, device))
            features, keep = padded_rows(kept)
        return MaskedContext(batch.ids, durations_of(batch), features, tokens, keep)

    def _encoder_output(
        self, clips: Sequence[Tensor], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """[B, F, E] of B clips, computed together, and their keep mask [B, F]."""
        extractor = self.processor.feature_extractor
        rows = []
        with torch.autocast("cpu", enabled=False):  # numpy has no bfloat16
            for clip in clips:
                made = extractor(clip.float().numpy(), sampling_rate=_RATE_HZ)
                rows.append(made["input_features"][0, : int(made["attention_mask"].sum())])
        inputs, mask = padded_rows(rows)

        with torch.set_grad_enabled(self.finetune.encoder and torch.is_grad_enabled()):
            features, keep = self._hear(inputs.to(device), mask.to(device))
        self.num_encoded += len(clips)
        return features, keep

    def _hear(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        encoder = self.audio_tower
        out = encoder(inputs.to(encoder.subsampling.linear.weight.dtype), attention_mask=mask)
        keep = out.attention_mask.bool()
        return torch.where(keep[..., None], out.last_hidden_state, 0), keep

    def _clip_outputs(self, clips: Sequence[Tensor], device: torch.device) -> list[Tensor]:
        """[F, E] of each of some clips, computed together, without padding."""
        features, keep = self._encoder_output(clips, device)
        return [output[kept] for output, kept in zip(features, keep, strict=True)]

    def encoder_settings(self) -> dict[str, Any]:
        return {
            "encoder": plain_settings(self.model.config.encoder_config.to_dict()),
            "features": plain_settings(self.processor.feature_extractor.to_dict()),
        }

    def example_context(
        self, num_prompts: int, seconds: float, text_tokens: int | None = None
    ) -> MaskedContext:
        if not 0 < seconds <= self.max_seconds:
            raise ValueError(
                f"{seconds} s of audio: CanaryPolicy takes at most {self.max_seconds:g} s"
            )
        config = self.model.config.encoder_config
        num_frames = max(2, int(seconds * _RATE_HZ) // _HOP_SAMPLES)
        inputs = torch.empty(num_prompts, num_frames, config.num_mel_bins)
        features, keep = self._hear(inputs, torch.ones(num_prompts, num_frames, dtype=torch.bool))

        # Context, transcript, emotion, two languages, and whether to write punctuation, numbers, times and speakers.
        tokens = torch.zeros(num_prompts, 9, dtype=torch.long)
        ids = [str(number) for number in range(num_prompts)]
        return MaskedContext(ids, [seconds] * num_prompts, features, tokens, keep)

    # --- prompts

    def _prompt(self, row: Utterance) -> list[int]:
        lang = language_of(row.lang)
        if lang not in _CODES:
            known = sorted(LANGUAGE_CODE_TO_NAME)
            raise ValueError(
                f"row {row.id!r}: lang {row.lang!r} is not one of this model's: {known}"
            )
        return self._request(_CODES[lang])

    def _request(self, code: str) -> list[int]:
        """The decoder's prompt for a language."""
        # The processor wants a clip; how long it is does not show in the text.
        texts = self.processor.apply_transcription_request(
            torch.zeros(400).numpy(),
            source_language=code,
            punctuation=self.punctuation,
            tokenize=False,
        )
        text = texts if isinstance(texts, str) else texts[0]
        return self.tokenizer.encode(text, add_special_tokens=False)
