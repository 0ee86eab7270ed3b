"""Voxtral (arXiv 2507.13264): Whisper's encoder in windows of 30 s, a projector, Llama as Mistral trains it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    VoxtralProcessor,
    WhisperFeatureExtractor,
)

from lightning_audiorl.models.decoding.audio_prompt import AudioPromptPolicy
from lightning_audiorl.models.decoding.clips import joined_windows, padded_rows
from lightning_audiorl.models.encoder_cache import EncoderCache
from lightning_audiorl.models.finetune import Finetune
from lightning_audiorl.models.loading import Family, TokenizerOutline, require_features
from lightning_audiorl.models.tiny_base import DIGIT_WORDS, TinySpec, keyed_weights, word_tokenizer
from lightning_audiorl.weights.tensors import WeightsError

_RATE_HZ = 16_000
_HOP_SAMPLES = 160

# Half an hour is what the model card gives for transcription.
_MAX_SECONDS = 1800

_TOKENS_PER_S = 12.5

# The transcription request: <s> [INST] [BEGIN_AUDIO] [AUDIO]... [/INST] lang:en [TRANSCRIBE]
_AUDIO = "[AUDIO]"
_BEGIN = ("[INST]", "[BEGIN_AUDIO]")
_END_INSTRUCTION = "[/INST]"
_TRANSCRIBE = "[TRANSCRIBE]"

# Of the tiny model: its processor takes token 24 for the placeholder, whatever the tokenizer says.
_AUDIO_TOKEN_ID = 24
_CONTROL = (*_BEGIN, _END_INSTRUCTION, _TRANSCRIBE, "lang:en", "lang:de")


@dataclass(frozen=True)
class TinyVoxtral(TinySpec):
    """Sizes of a tiny `VoxtralForConditionalGeneration`; the same seed gives the same weights.

    Its windows are of 30 s, which its processor has no setting for. Its tokenizer is one of transformers.

    Args:
        words: the tokenizer's vocabulary, one token each.
        width: hidden size of encoder and language model.
        encoder_layers, lm_layers: numbers of layers.
        num_mel_bins: of the features.
        max_positions: most tokens that the language model has positions for.
        seed: keys the initial weights.
    """

    words: tuple[str, ...] = tuple(DIGIT_WORDS)
    width: int = 128
    encoder_layers: int = 2
    lm_layers: int = 2
    heads: int = 4
    num_mel_bins: int = 40
    max_positions: int = 2048
    seed: int = 0

    def build(self) -> tuple[VoxtralForConditionalGeneration, VoxtralProcessor]:
        tokenizer = self._tokenizer()
        config = VoxtralConfig(
            audio_config=self._audio_config(),
            text_config=self._text_config(tokenizer),
            audio_token_id=_AUDIO_TOKEN_ID,
        )
        with keyed_weights(self):
            model = VoxtralForConditionalGeneration(config)
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id

        extractor = WhisperFeatureExtractor(feature_size=self.num_mel_bins)
        return model, VoxtralProcessor(extractor, tokenizer)

    def _tokenizer(self) -> PreTrainedTokenizerFast:
        # Five tokens stand before the words.
        num_reserved = _AUDIO_TOKEN_ID - 5 - len(_CONTROL)
        reserved = [f"[RESERVED_{i}]" for i in range(num_reserved)]
        special = [*_CONTROL, *reserved, _AUDIO]
        tokenizer = word_tokenizer([*special, *self.words])
        tokenizer.add_special_tokens({"extra_special_tokens": special})
        return tokenizer

    def _audio_config(self) -> dict[str, Any]:
        return {
            "model_type": "voxtral_encoder",
            "num_mel_bins": self.num_mel_bins,
            "hidden_size": self.width,
            "num_hidden_layers": self.encoder_layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
        }

    def _text_config(self, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
        return {
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": self.width,
            "intermediate_size": 3 * self.width,
            "num_hidden_layers": self.lm_layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "head_dim": self.width // self.heads,
            "max_position_embeddings": self.max_positions,
            "tie_word_embeddings": False,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }


class VoxtralPolicy(AudioPromptPolicy):
    """`VoxtralForConditionalGeneration` behind the policy interface: its transcription request.

    A clip is padded to whole windows of 30 s, 375 tokens each, as its processor pads it.

    Args:
        init_from: a folder or hub id in Hugging Face layout, a Lightning checkpoint of ours, or the sizes of a tiny
            random model.
        finetune: what trains; by default projector and language model.
        dtype: of the weights, and of an export ("float32", "bfloat16"). Adapters are float32 on any; a fit refuses
            other trained weights in less.
        revision: hub revision.
        encoder_cache: keeps the encoder's outputs of clips that come again; wants a frozen encoder.
    """

    family = Family(TinyVoxtral, VoxtralForConditionalGeneration, VoxtralProcessor)

    def __init__(
        self,
        init_from: str | TinyVoxtral,
        finetune: Finetune | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        encoder_cache: EncoderCache | None = None,
    ) -> None:
        super().__init__()
        self._load(init_from, dtype, revision)
        self._check_processor()
        self._make_ready(finetune, encoder_cache)
        # Sinusoids: they stay as they are, also where the encoder trains.
        self.model.model.audio_tower.embed_positions.requires_grad_(False)

    def _check_processor(self) -> None:
        """See at once that the processor fits the model, and that the tokenizer knows the request's tokens."""
        if isinstance(self.processor, TokenizerOutline):
            return
        config = self.model.config.audio_config
        source = self.start.source
        require_features(
            source,
            sampling_rate=(self.extractor.sampling_rate, _RATE_HZ),
            feature_size=(self.extractor.feature_size, config.num_mel_bins),
            # Two windows of 10 ms for each position of the encoder.
            nb_max_frames=(self.extractor.nb_max_frames, 2 * config.max_source_positions),
        )

        known = self.tokenizer.get_vocab()
        missing = [
            token
            for token in (*_BEGIN, _AUDIO, _END_INSTRUCTION, _TRANSCRIBE)
            if token not in known
        ]
        if missing:
            raise WeightsError(
                f"{source}: its tokenizer has no token {', '.join(missing)}, of which the request for a transcript "
                "is made; copy the tokenizer of the model that this one was made of"
            )

        if known[_AUDIO] != self.audio_token_id:
            raise WeightsError(
                f"{source}: the audio token of its tokenizer is {known[_AUDIO]}, and its model wants "
                f"{self.audio_token_id}; copy the tokenizer of the model that this one was made of"
            )

    # --- clips

    @property
    def _window_frames(self) -> int:
        return 2 * self.model.config.audio_config.max_source_positions

    @property
    def max_seconds(self) -> float:
        """Half an hour, or half of the language model's positions: the other half is for prompt and transcript."""
        positions = self.model.config.text_config.max_position_embeddings
        return min(_MAX_SECONDS, positions / 2 / _TOKENS_PER_S)

    def padded_s(self, duration_s: float) -> float:
        window_s = self._window_frames * _HOP_SAMPLES / _RATE_HZ
        return math.ceil(duration_s / window_s) * window_s

    def read(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        rows = []
        for clip in clips:
            made = self.extractor(
                clip.numpy(),
                sampling_rate=_RATE_HZ,
                padding=True,
                truncation=False,
                pad_to_multiple_of=self._window_frames * _HOP_SAMPLES,
                return_tensors="pt",
            )
            # The features of the whole clip, cut into windows.
            features = made["input_features"][0].unflatten(1, (-1, self._window_frames))
            rows.append(features.transpose(0, 1))
        return padded_rows(rows)

    def hear(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder makes of windows [B, W, mel bins, T], of which ``mask`` [B, W] are the clips'."""
        windows = inputs[mask].to(self.audio_tower.conv1.weight.dtype)
        encoded = self.audio_tower(windows).last_hidden_state

        # Four frames in one row, as the projector takes them.
        width = self.model.config.audio_config.intermediate_size
        merged = encoded.reshape(len(windows), -1, width)
        num_rows = [merged.shape[1]] * len(windows)
        return padded_rows(joined_windows(merged, num_rows, mask.sum(-1).tolist()))

    def project(self, features: Tensor, keep: Tensor) -> Tensor:
        return self.projector(features[keep])

    def example_inputs(self, num_prompts: int, seconds: float) -> tuple[Tensor, Tensor]:
        num_windows = -(-max(1, int(100 * seconds)) // self._window_frames)
        num_bins = self.model.config.audio_config.num_mel_bins
        inputs = torch.empty(num_prompts, num_windows, num_bins, self._window_frames)
        return inputs, torch.ones(num_prompts, num_windows, dtype=torch.bool)

    # --- prompts

    def hotword_request(self, lang: str, words: Sequence[str]) -> str:
        raise ValueError(
            "its transcription request is the clip, the language and control tokens; leave `hotwords` out of the data"
        )

    def request_tokens(self, lang: str) -> list[int]:
        # The published tokenizer reads no control token in a text.
        ids = self.tokenizer.convert_tokens_to_ids
        tokens: list[Any] = [self.tokenizer.bos_token_id, *(ids(token) for token in _BEGIN)]
        tokens += [self.audio_token_id, ids(_END_INSTRUCTION)]
        # Two letters; of another language, or of several, the model finds out by itself.
        if len(lang) == 2:
            tokens += self.tokenizer.encode(f"lang:{lang}", add_special_tokens=False)
        return [*tokens, ids(_TRANSCRIBE)]
