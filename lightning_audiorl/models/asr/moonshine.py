"""Moonshine (arXiv 2410.15608): an encoder over raw samples, as many frames as a clip is long, and a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)

from lightning_audiorl.checks import check_number
from lightning_audiorl.models.decoding.clips import by_length, padded_rows
from lightning_audiorl.models.decoding.uneven_clips import UnevenClipsPolicy
from lightning_audiorl.models.encoder_cache import EncoderCache, plain_settings
from lightning_audiorl.models.finetune import Finetune
from lightning_audiorl.models.loading import Family, TokenizerOutline, require_features
from lightning_audiorl.models.tiny_base import DIGIT_WORDS, TinySpec, keyed_weights, word_tokenizer
from lightning_audiorl.types import Utterance
from lightning_audiorl.weights.tensors import WeightsError

_RATE_HZ = 16_000

# Of one frame: 13 of the first convolution, three of the second, each 64 samples behind the one before.
_MIN_SAMPLES = 127 + 12 * 64

# Of the configuration, beside those that begin with encoder_.
_ENCODER_SETTINGS = (
    "hidden_size",
    "intermediate_size",
    "attention_bias",
    "pad_head_dim_to_multiple_of",
    "rope_parameters",
)


@dataclass(frozen=True)
class TinyMoonshine(TinySpec):
    """Sizes of a tiny `MoonshineForConditionalGeneration`; the same seed gives the same weights.

    Args:
        words: the tokenizer's vocabulary, one token each.
        width: hidden size of encoder and decoder.
        encoder_layers, decoder_layers: numbers of layers.
        heads: of encoder and decoder; each is padded to a multiple of 8, as in the published ones.
        max_positions: most decoder tokens, prompt included.
        seed: keys the initial weights.
    """

    words: tuple[str, ...] = tuple(DIGIT_WORDS)
    width: int = 128
    encoder_layers: int = 2
    decoder_layers: int = 2
    heads: int = 4
    max_positions: int = 128
    seed: int = 0

    def build(self) -> tuple[MoonshineForConditionalGeneration, Wav2Vec2Processor]:
        tokenizer = word_tokenizer(self.words)
        ends: dict[str, Any] = {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "decoder_start_token_id": tokenizer.bos_token_id,
        }

        config = MoonshineConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.width,
            intermediate_size=4 * self.width,
            encoder_num_hidden_layers=self.encoder_layers,
            decoder_num_hidden_layers=self.decoder_layers,
            encoder_num_attention_heads=self.heads,
            decoder_num_attention_heads=self.heads,
            pad_head_dim_to_multiple_of=8,
            max_position_embeddings=self.max_positions,
            **ends,
        )

        with keyed_weights(self):
            model = MoonshineForConditionalGeneration(config)
        for name, token in ends.items():
            setattr(model.generation_config, name, token)

        extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
        return model, Wav2Vec2Processor(extractor, tokenizer)


class MoonshinePolicy(UnevenClipsPolicy):
    """`MoonshineForConditionalGeneration` behind the policy interface.

    A checkpoint knows one language, and is not told which: that of a row is not looked at. Each clip is encoded as if
    it were alone: the family norms over whole batches' padding, and its masks are two frames too long. Clips beyond
    ``max_duration_s`` are refused.

    Args:
        init_from: a folder or hub id in Hugging Face layout, a Lightning checkpoint of ours, or the sizes of a tiny
            random model.
        finetune: what trains; Moonshine has no projector, its cross-attention belongs to the decoder ("lm"). LoRA
            without ``lora_targets`` goes to both attentions and the feed-forward layers of the decoder.
        dtype: of the weights, and of an export ("float32", "bfloat16"). Adapters are float32 on any; a fit refuses
            other trained weights in less.
        revision: hub revision.
        max_duration_s: of a clip. The published models were trained on up to 30 s.
        encoder_cache: keeps the encoder's outputs of clips that come again; wants a frozen encoder.
    """

    family = Family(TinyMoonshine, MoonshineForConditionalGeneration, Wav2Vec2Processor)
    min_samples = _MIN_SAMPLES

    def __init__(
        self,
        init_from: str | TinyMoonshine,
        finetune: Finetune | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        max_duration_s: float = 30.0,
        encoder_cache: EncoderCache | None = None,
    ) -> None:
        super().__init__()
        check_number("MoonshinePolicy.max_duration_s", max_duration_s, above=0)
        self.max_duration_s = max_duration_s
        self._load(init_from, dtype, revision)
        self._check_processor()
        self._make_ready(finetune, encoder_cache)

    def _check_processor(self) -> None:
        """See at once that the processor fits the model, and that it is known where a prompt begins."""
        if isinstance(self.processor, TokenizerOutline):
            return
        require_features(
            self.start.source,
            sampling_rate=(self.extractor.sampling_rate, _RATE_HZ),
            feature_size=(self.extractor.feature_size, 1),
        )
        if self._start_token is None:
            raise WeightsError(
                f"{self.start.source}: its generation_config.json does not say where a prompt begins "
                "(decoder_start_token_id); copy it from the model that this one was made of"
            )

    @property
    def _start_token(self) -> int | None:
        return self.model.generation_config.decoder_start_token_id

    @property
    def max_positions(self) -> int:
        return self.model.config.max_position_embeddings

    # --- clips

    def hear(self, clips: Sequence[Tensor], device: torch.device) -> list[Tensor]:
        # One by one: it may norm a clip's samples. On the CPU, in numpy, which has no bfloat16.
        with torch.autocast("cpu", enabled=False):
            made = [
                self.extractor(clip.numpy(), sampling_rate=_RATE_HZ, return_tensors="pt")
                for clip in clips
            ]
        encoder = self.model.model.encoder
        samples = [each["input_values"][0].to(device, encoder.conv1.weight.dtype) for each in made]

        inputs, _ = padded_rows(samples)
        lengths = [len(clip) for clip in clips]
        return by_length(lambda rows: encoder(rows).last_hidden_state, inputs, lengths)

    def encoder_settings(self) -> dict[str, Any]:
        # The decoder's settings may change, in an export for one, and the encoder is the same.
        settings = {}
        for name, value in self.model.config.to_dict().items():
            if name in _ENCODER_SETTINGS or name.startswith("encoder_"):
                settings[name] = value
        return {"encoder": settings, "features": plain_settings(self.extractor.to_dict())}

    def example_features(self, num_prompts: int, num_samples: int) -> Tensor:
        encoder = self.model.model.encoder
        inputs = torch.empty(num_prompts, num_samples, dtype=encoder.conv1.weight.dtype)
        return encoder(inputs).last_hidden_state

    # --- prompts

    @property
    def num_prompt_tokens(self) -> int:
        return 1

    def prompt_tokens(self, row: Utterance) -> list[int]:
        assert self._start_token is not None
        return [self._start_token]
