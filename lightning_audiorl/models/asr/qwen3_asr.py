"""Qwen3-ASR (arXiv 2601.21337): an encoder with windows of its own, a projector, Qwen3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AddedToken,
    PreTrainedTokenizerFast,
    Qwen3ASRConfig,
    Qwen3ASRFeatureExtractor,
    Qwen3ASRForConditionalGeneration,
    Qwen3ASRProcessor,
)
from transformers.models.qwen3_asr.processing_qwen3_asr import LANGUAGE_CODE_TO_NAME

from lightning_audiorl.languages import language_of
from lightning_audiorl.models.decoding.audio_prompt import AudioContext, AudioPromptPolicy
from lightning_audiorl.models.decoding.clips import padded_rows
from lightning_audiorl.models.decoding.hotwords import SEPARATOR
from lightning_audiorl.models.encoder_cache import EncoderCache
from lightning_audiorl.models.finetune import Finetune
from lightning_audiorl.models.loading import Family, TokenizerOutline, require_features
from lightning_audiorl.models.tiny_base import DIGIT_WORDS, TinySpec, keyed_weights, word_tokenizer
from lightning_audiorl.types import Rollout
from lightning_audiorl.weights.tensors import WeightsError

_RATE_HZ = 16_000

# What the published code reads in one piece.
_MAX_SECONDS = 1200

# The encoder cuts features of 10 ms into pieces of 1 s, and makes 13 frames of each.
_FRAMES_PER_S = 13

#: Between the language, which is in the prompt or written by the model, and the transcript.
_MARKER = "<asr_text>"

# The published recipe's, of a text whose language is not said.
_UNSAID = f"language None{_MARKER}"

# By our code, the name that the prompt has for it.
_NAMES = {language_of(code): name for code, name in LANGUAGE_CODE_TO_NAME.items()}

# Of the tiny model.
_AUDIO = ("<|audio_start|>", "<|audio_pad|>", "<|audio_end|>")
_LANGUAGE_WORDS = ("language", "English", "Chinese", "None")
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_start|><|audio_pad|><|audio_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


@dataclass(frozen=True)
class TinyQwen3ASR(TinySpec):
    """Sizes of a tiny `Qwen3ASRForConditionalGeneration`; the same seed gives the same weights.

    Args:
        words: the tokenizer's vocabulary, one token each; the words that name a language come on top.
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
    max_positions: int = 1024
    seed: int = 0

    def build(self) -> tuple[Qwen3ASRForConditionalGeneration, Qwen3ASRProcessor]:
        tokenizer = word_tokenizer([*self.words, *_LANGUAGE_WORDS], _AUDIO)
        # Not special, as in the published tokenizer: it is written where the language is not in the prompt.
        tokenizer.add_tokens([AddedToken(_MARKER, special=False)])
        start, pad, end = _AUDIO
        named: dict[str, str | AddedToken] = {
            "audio_bos_token": start,
            "audio_token": pad,
            "audio_eos_token": end,
        }
        tokenizer._set_model_specific_special_tokens(named)

        config = Qwen3ASRConfig(
            audio_config=self._audio_config(),
            text_config=self._text_config(tokenizer),
            audio_token_id=tokenizer.get_vocab()[pad],
            pad_token_id=tokenizer.eos_token_id,
            eos_token_id=[tokenizer.pad_token_id, tokenizer.eos_token_id],
        )
        with keyed_weights(self):
            model = Qwen3ASRForConditionalGeneration(config)
        model.generation_config.eos_token_id = [tokenizer.pad_token_id, tokenizer.eos_token_id]
        model.generation_config.pad_token_id = tokenizer.eos_token_id

        extractor = Qwen3ASRFeatureExtractor(feature_size=self.num_mel_bins)
        return model, Qwen3ASRProcessor(extractor, tokenizer, chat_template=_CHAT_TEMPLATE)

    def _audio_config(self) -> dict[str, Any]:
        return {
            "model_type": "qwen3_asr_encoder",
            "num_mel_bins": self.num_mel_bins,
            "d_model": self.width,
            "encoder_layers": self.encoder_layers,
            "encoder_attention_heads": self.heads,
            "encoder_ffn_dim": 4 * self.width,
            "output_dim": self.width,
            "downsample_hidden_size": 16,
            # Of 2 s, so that a short clip already has several.
            "n_window_infer": 200,
        }

    def _text_config(self, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
        return {
            "model_type": "qwen3",
            "vocab_size": len(tokenizer),
            "hidden_size": self.width,
            "intermediate_size": 3 * self.width,
            "num_hidden_layers": self.lm_layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "head_dim": self.width // self.heads,
            "max_position_embeddings": self.max_positions,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }


class Qwen3ASRPolicy(AudioPromptPolicy):
    """`Qwen3ASRForConditionalGeneration` behind the policy interface.

    The language of a row stands in its prompt where the model knows it; else the model writes it before the transcript,
    and what is decoded is the transcript alone. Unlike the processor's own parsing, which takes out what is repeated
    twenty times, a loop stays a loop.

    Hotwords of a row stand in the system's message, which its makers call context.

    Args:
        init_from: a folder or hub id in Hugging Face layout (those whose name ends in -hf), a Lightning checkpoint of
            ours, or the sizes of a tiny random model.
        finetune: what trains; by default projector and language model.
        dtype: of the weights, and of an export ("float32", "bfloat16"). Adapters are float32 on any; a fit refuses
            other trained weights in less.
        revision: hub revision.
        encoder_cache: keeps the encoder's outputs of clips that come again; wants a frozen encoder.
    """

    family = Family(TinyQwen3ASR, Qwen3ASRForConditionalGeneration, Qwen3ASRProcessor)

    def __init__(
        self,
        init_from: str | TinyQwen3ASR,
        finetune: Finetune | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        encoder_cache: EncoderCache | None = None,
    ) -> None:
        super().__init__()
        self._load(init_from, dtype, revision)
        self._check_processor()
        self._make_ready(finetune, encoder_cache)

    def _check_processor(self) -> None:
        """See at once that the processor fits the model, and that its template asks for a transcript."""
        if isinstance(self.processor, TokenizerOutline):
            return
        config = self.model.config.audio_config
        source = self.start.source
        require_features(
            source,
            sampling_rate=(self.extractor.sampling_rate, _RATE_HZ),
            feature_size=(self.extractor.feature_size, config.num_mel_bins),
            n_window=(self.extractor.n_window, config.n_window),
        )

        marker = self.tokenizer.encode(_MARKER, add_special_tokens=False)
        if len(marker) != 1 or marker[0] in self.tokenizer.all_special_ids:
            raise WeightsError(
                f"{source}: its tokenizer has no token {_MARKER}; copy tokenizer.json and tokenizer_config.json from "
                "the model that this one was made of"
            )
        self.check_request()

    def _vocabulary(self) -> tuple[list[int], Tensor]:
        stop_ids, allowed = super()._vocabulary()
        # The generation config names the end of a document before that of a turn, which a text to learn from ends with.
        end = self.tokenizer.eos_token_id
        if end in stop_ids:
            stop_ids = [end, *(token for token in stop_ids if token != end)]
        return stop_ids, allowed

    @property
    def max_seconds(self) -> float:
        """Twenty minutes, or half of the language model's positions: the other half is for prompt and transcript."""
        positions = self.model.config.text_config.max_position_embeddings
        return min(_MAX_SECONDS, positions / 2 / _FRAMES_PER_S)

    def read(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        rows = []
        for clip in clips:
            # One by one: beside a longer clip the extractor counts one frame more for some lengths, and the last frame
            # of any hears other padding.
            made = self.extractor(
                clip.numpy(), sampling_rate=_RATE_HZ, padding=True, return_attention_mask=True
            )
            num_frames = int(made["attention_mask"].sum())
            rows.append(made["input_features"][0, :, :num_frames].T)
        return self._whole_pieces(*padded_rows(rows))

    def _whole_pieces(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, mel bins] -> [B, mel bins, T], T a multiple of what the encoder cuts it into."""
        missing = -inputs.shape[1] % (2 * self.audio_tower.n_window)
        inputs = torch.nn.functional.pad(inputs, (0, 0, 0, missing))
        return inputs.transpose(1, 2), torch.nn.functional.pad(mask, (0, missing))

    def hear(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        inputs = inputs.to(self.audio_tower.conv_out.weight.dtype)
        flat = self.audio_tower(
            input_features=inputs, input_features_mask=mask.long()
        ).last_hidden_state

        # Pieces end alike whatever stands beside them: frames of a clip are those of its pieces.
        piece = 2 * self.audio_tower.n_window
        num_frames = self.audio_tower._post_cnn_length(mask.unflatten(1, (-1, piece)).sum(-1))
        return padded_rows(flat.split(num_frames.sum(-1).tolist()))

    def project(self, features: Tensor, keep: Tensor) -> Tensor:
        return self.projector(features[keep])

    def example_inputs(self, num_prompts: int, seconds: float) -> tuple[Tensor, Tensor]:
        num_frames = max(1, int(100 * seconds))
        inputs = torch.empty(num_prompts, num_frames, self.model.config.audio_config.num_mel_bins)
        mask = torch.ones(num_prompts, num_frames, dtype=torch.bool)
        return self._whole_pieces(inputs, mask)

    def request(self, lang: str) -> str:
        return self._asked(lang, None)

    def hotword_request(self, lang: str, words: Sequence[str]) -> str:
        # What its makers call context: the system's message.
        return self._asked(lang, SEPARATOR.join(words))

    def _asked(self, lang: str, context: str | None) -> str:
        # The processor wants a clip; how long it is does not show in the text.
        texts = self.processor.apply_transcription_request(
            audio=torch.zeros(400).numpy(),
            language=_NAMES.get(lang),
            prompt=context,
            tokenize=False,
        )
        return texts if isinstance(texts, str) else texts[0]

    def decode(self, rollout: Rollout, context: AudioContext) -> list[list[str]]:
        groups = []
        for texts in super().decode(rollout, context):
            groups.append([_transcript(text) for text in texts])
        return groups

    def targets(self, context: AudioContext, texts: Sequence[str]) -> Rollout:
        marker = self.tokenizer.convert_tokens_to_ids(_MARKER)
        written = []
        for prompt, text in zip(context.tokens, texts, strict=True):
            is_said = prompt[-1] == marker
            written.append(text if is_said else f"{_UNSAID}{text}")
        return super().targets(context, written)


def _transcript(text: str) -> str:
    """What stands behind the marker; all of a text without one.

    Example:
        >>> _transcript("language English<asr_text>one two"), _transcript("one two")
        ('one two', 'one two')
    """
    before, _, after = text.partition(_MARKER)
    return after.strip() if _MARKER in text else before
