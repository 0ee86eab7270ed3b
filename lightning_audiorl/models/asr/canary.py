"""Canary (arXiv 2509.14128): a FastConformer encoder, and a decoder that attends to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from transformers import (
    CanaryConfig,
    CanaryForConditionalGeneration,
    CanaryProcessor,
    ParakeetFeatureExtractor,
)
from transformers.models.canary.processing_canary import LANGUAGE_CODE_TO_NAME

from lightning_audiorl.languages import language_of
from lightning_audiorl.models.decoding.clips import padded_rows
from lightning_audiorl.models.decoding.uneven_clips import UnevenClipsPolicy
from lightning_audiorl.models.encoder_cache import EncoderCache, plain_settings
from lightning_audiorl.models.finetune import Finetune
from lightning_audiorl.models.loading import Family, TokenizerOutline, require_features
from lightning_audiorl.models.tiny_base import DIGIT_WORDS, TinySpec, keyed_weights, word_tokenizer
from lightning_audiorl.types import Utterance
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
        start = tokenizer.get_vocab()[_CONTROL[0]]

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


class CanaryPolicy(UnevenClipsPolicy):
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
    min_samples = _MIN_SAMPLES

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
        # As far as the encoder has positions.
        encoder = self.model.config.encoder_config
        longest = encoder.max_position_embeddings * encoder.subsampling_factor * _HOP_SAMPLES
        self.max_duration_s = longest / _RATE_HZ
        self._check_processor()
        self._make_ready(finetune, encoder_cache)
        self.model.model.encoder.eval()

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

    @property
    def max_positions(self) -> int:
        return self.model.config.decoder_config.max_position_embeddings

    def train(self, mode: bool = True) -> Self:
        """Train mode but for the encoder: its batch norm would move, also where the encoder is frozen."""
        super().train(mode)
        self.model.model.encoder.eval()
        return self

    # --- clips

    def hear(self, clips: Sequence[Tensor], device: torch.device) -> list[Tensor]:
        extractor = self.processor.feature_extractor
        rows = []
        with torch.autocast("cpu", enabled=False):  # numpy has no bfloat16
            for clip in clips:
                made = extractor(clip.float().numpy(), sampling_rate=_RATE_HZ)
                rows.append(made["input_features"][0, : int(made["attention_mask"].sum())])
        inputs, mask = padded_rows(rows)

        # With their mask clips of one batch stay apart, but for rounding.
        encoder = self.model.model.encoder
        inputs = inputs.to(device, encoder.subsampling.linear.weight.dtype)
        out = encoder(inputs, attention_mask=mask.to(device))
        keep = out.attention_mask.bool()
        return [states[own] for states, own in zip(out.last_hidden_state, keep, strict=True)]

    def encoder_settings(self) -> dict[str, Any]:
        return {
            "encoder": plain_settings(self.model.config.encoder_config.to_dict()),
            "features": plain_settings(self.processor.feature_extractor.to_dict()),
        }

    def example_features(self, num_prompts: int, num_samples: int) -> Tensor:
        encoder = self.model.model.encoder
        num_mel_bins = self.model.config.encoder_config.num_mel_bins
        inputs = torch.empty(num_prompts, num_samples // _HOP_SAMPLES, num_mel_bins)
        return encoder(inputs.to(encoder.subsampling.linear.weight.dtype)).last_hidden_state

    # --- prompts

    @property
    def num_prompt_tokens(self) -> int:
        # Context, transcript, emotion, two languages; whether to write punctuation, numbers, times and speakers.
        return 9

    def prompt_tokens(self, row: Utterance) -> list[int]:
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
