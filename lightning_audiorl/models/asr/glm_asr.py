"""GLM-ASR: Whisper's features in windows of 30 s, an encoder with rotary positions, a projector, Llama."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    GlmAsrConfig,
    GlmAsrForConditionalGeneration,
    GlmAsrProcessor,
    PreTrainedTokenizerFast,
    WhisperFeatureExtractor,
)

from lightning_audiorl.languages import english_name
from lightning_audiorl.models.decoding.audio_prompt import AudioPromptPolicy
from lightning_audiorl.models.decoding.clips import joined_windows, padded_rows
from lightning_audiorl.models.decoding.hotwords import checked_instruction, instruction_with
from lightning_audiorl.models.encoder_cache import EncoderCache
from lightning_audiorl.models.finetune import Finetune
from lightning_audiorl.models.loading import Family, TokenizerOutline, require_features
from lightning_audiorl.models.tiny_base import (
    AUDIO_TOKEN,
    DIGIT_WORDS,
    TinySpec,
    keyed_weights,
    word_tokenizer,
)

_RATE_HZ = 16_000
_HOP_SAMPLES = 160

# The encoder halves the features' frames, the projector takes four of its own together.
_FRAMES_PER_TOKEN = 8
_TOKENS_PER_S = 12.5

# One token.
_MIN_SAMPLES = 6 * _HOP_SAMPLES + 1

# Of the tiny model.
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|object_ref_start|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


@dataclass(frozen=True)
class TinyGlmAsr(TinySpec):
    """Sizes of a tiny `GlmAsrForConditionalGeneration`; the same seed gives the same weights.

    Args:
        words: the tokenizer's vocabulary, one token each.
        width: hidden size of encoder and language model.
        encoder_layers, lm_layers: numbers of layers.
        chunk_length_s: of a window, in whole seconds (the family's own is 30).
        num_mel_bins: of the features.
        max_positions: most tokens that the language model has positions for.
        seed: keys the initial weights.
    """

    words: tuple[str, ...] = tuple(DIGIT_WORDS)
    width: int = 128
    encoder_layers: int = 2
    lm_layers: int = 2
    heads: int = 4
    chunk_length_s: int = 8
    num_mel_bins: int = 40
    max_positions: int = 1024
    seed: int = 0

    def build(self) -> tuple[GlmAsrForConditionalGeneration, GlmAsrProcessor]:
        tokenizer = word_tokenizer(self.words)
        config = GlmAsrConfig(
            audio_config=self._audio_config(),
            text_config=self._text_config(tokenizer),
            audio_token_id=tokenizer.get_vocab()[AUDIO_TOKEN],
        )
        with keyed_weights(self):
            model = GlmAsrForConditionalGeneration(config)
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id

        extractor = WhisperFeatureExtractor(
            feature_size=self.num_mel_bins, chunk_length=self.chunk_length_s
        )
        processor = GlmAsrProcessor(
            extractor,
            tokenizer,
            chat_template=_CHAT_TEMPLATE,
            audio_token=AUDIO_TOKEN,
            max_audio_len=int(self.max_positions / _TOKENS_PER_S),
        )
        return model, processor

    def _audio_config(self) -> dict[str, Any]:
        return {
            "model_type": "glmasr_encoder",
            "num_mel_bins": self.num_mel_bins,
            "hidden_size": self.width,
            "num_hidden_layers": self.encoder_layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
            # 20 ms for each.
            "max_position_embeddings": 50 * self.chunk_length_s,
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
            "max_position_embeddings": self.max_positions,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }


class GlmAsrPolicy(AudioPromptPolicy):
    """`GlmAsrForConditionalGeneration` behind the policy interface.

    A clip is read in windows of 30 s, as its processor cuts it. Clips beyond as many whole windows as the language
    model has positions for, 630 s, are refused: the processor cuts them there, and speaks of 655.

    Args:
        init_from: a folder or hub id in Hugging Face layout, a Lightning checkpoint of ours, or the sizes of a tiny
            random model.
        finetune: what trains; by default projector and language model.
        dtype: of the weights, and of an export ("float32", "bfloat16"). Adapters are float32 on any; a fit refuses
            other trained weights in less.
        revision: hub revision.
        encoder_cache: keeps the encoder's outputs of clips that come again; wants a frozen encoder.
        instruction: what is asked of each clip; ``{language}`` in it stands for the English name of the row's language.
            None is the processor's own.
        hotwords: what is asked of a clip whose row has hotwords, which ``{hotwords}`` in it stands for, such as
            "Transcribe the input speech. Keywords: {hotwords}"; ``{language}`` as in ``instruction``. None refuses such
            rows: the model card has no form for them.
    """

    family = Family(TinyGlmAsr, GlmAsrForConditionalGeneration, GlmAsrProcessor)

    def __init__(
        self,
        init_from: str | TinyGlmAsr,
        finetune: Finetune | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        encoder_cache: EncoderCache | None = None,
        instruction: str | None = None,
        hotwords: str | None = None,
    ) -> None:
        super().__init__()
        self.instruction = instruction
        self.hotwords = checked_instruction("GlmAsrPolicy", hotwords)
        self._load(init_from, dtype, revision)
        self._check_processor()
        self._make_ready(finetune, encoder_cache)

    def _check_processor(self) -> None:
        """See at once that the processor fits the model, and that its template asks for a transcript."""
        if isinstance(self.processor, TokenizerOutline):
            return
        config = self.model.config.audio_config
        require_features(
            self.start.source,
            sampling_rate=(self.extractor.sampling_rate, _RATE_HZ),
            feature_size=(self.extractor.feature_size, config.num_mel_bins),
            # Two windows of 10 ms for each position of the encoder.
            nb_max_frames=(self.extractor.nb_max_frames, 2 * config.max_position_embeddings),
        )
        self.check_request()

    # --- clips

    @property
    def min_samples(self) -> int:
        return _MIN_SAMPLES

    @property
    def _window_samples(self) -> int:
        return 2 * self.model.config.audio_config.max_position_embeddings * _HOP_SAMPLES

    @property
    def max_seconds(self) -> float:
        """Whole windows, as many as the language model has positions for."""
        window_s = self._window_samples / _RATE_HZ
        positions = self.model.config.text_config.max_position_embeddings
        longest = positions / _TOKENS_PER_S
        if not isinstance(self.processor, TokenizerOutline):
            longest = min(longest, self.processor.max_audio_len)
        return longest // window_s * window_s

    def padded_s(self, duration_s: float) -> float:
        window_s = self._window_samples / _RATE_HZ
        return math.ceil(duration_s / window_s) * window_s

    def read(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        windows: list[Tensor] = []
        num_frames: list[Tensor] = []
        for clip in clips:
            pieces = [piece.numpy() for piece in clip.split(self._window_samples)]
            made = self.extractor(
                pieces, sampling_rate=_RATE_HZ, return_attention_mask=True, return_tensors="pt"
            )
            windows.append(made["input_features"])
            num_frames.append(made["attention_mask"].sum(-1))

        # Of a window that only another clip has, none.
        return pad_sequence(windows, batch_first=True), pad_sequence(num_frames, batch_first=True)

    def hear(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder makes of windows [B, W, mel bins, T], ``mask`` [B, W] of whose frames are the clips'."""
        is_own = mask > 0
        windows = inputs[is_own].to(self.audio_tower.conv1.weight.dtype)
        encoded = self.audio_tower(windows).last_hidden_state

        # Four frames in one row, as the projector takes them.
        width = self.model.config.audio_config.intermediate_size
        merged = encoded.reshape(len(windows), -1, width)
        num_rows = ((mask[is_own] - 1) // 2 + 1) // 4
        rows = joined_windows(merged, num_rows.tolist(), is_own.sum(-1).tolist())
        return padded_rows(rows)

    def project(self, features: Tensor, keep: Tensor) -> Tensor:
        return self.projector(features[keep])

    def example_inputs(self, num_prompts: int, seconds: float) -> tuple[Tensor, Tensor]:
        config = self.model.config.audio_config
        longest = 2 * config.max_position_embeddings
        num_frames = max(_FRAMES_PER_TOKEN, int(100 * seconds))
        num_windows = -(-num_frames // longest)
        inputs = torch.empty(num_prompts, num_windows, config.num_mel_bins, longest)

        sizes = torch.full((num_prompts, num_windows), longest)
        sizes[:, -1] = num_frames - (num_windows - 1) * longest
        return inputs, sizes

    def request(self, lang: str) -> str:
        asked = self.instruction
        if asked is not None:
            asked = asked.replace("{language}", english_name(lang))
        return self._asked(asked)

    def hotword_request(self, lang: str, words: Sequence[str]) -> str:
        return self._asked(instruction_with(self.hotwords, lang, words))

    def _asked(self, asked: str | None) -> str:
        # The processor wants a clip; how long it is does not show in the text.
        texts = self.processor.apply_transcription_request(
            torch.zeros(400).numpy(), prompt=asked, tokenize=False
        )
        return texts if isinstance(texts, str) else texts[0]
