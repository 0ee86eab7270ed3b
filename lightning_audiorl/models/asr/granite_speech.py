"""Granite-Speech (arXiv 2505.08699): a conformer, a windowed Q-Former, Granite with an adapter of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from transformers import (
    GraniteSpeechConfig,
    GraniteSpeechFeatureExtractor,
    GraniteSpeechForConditionalGeneration,
    GraniteSpeechProcessor,
    PreTrainedTokenizerFast,
)

from lightning_audiorl.languages import english_name
from lightning_audiorl.models.decoding.audio_prompt import AudioPromptPolicy
from lightning_audiorl.models.decoding.clips import by_length, padded_rows
from lightning_audiorl.models.decoding.hotwords import checked_instruction, instruction_with
from lightning_audiorl.models.encoder_cache import EncoderCache
from lightning_audiorl.models.export import Adapter
from lightning_audiorl.models.finetune import Finetune
from lightning_audiorl.models.loading import Family, TokenizerOutline, require_features
from lightning_audiorl.models.tiny_base import (
    AUDIO_TOKEN,
    DIGIT_WORDS,
    TinySpec,
    keyed_weights,
    word_tokenizer,
)
from lightning_audiorl.weights.tensors import WeightsError

_RATE_HZ = 16_000

# One window of the feature extractor, which makes one frame of the encoder.
_MIN_SAMPLES = 400

# Frames of the encoder, 20 ms each.
_FRAMES_PER_S = 50

#: As the model card asks.
INSTRUCTION = "can you transcribe the speech into a written format?"

#: As the model cards from granite-4.0-1b-speech on ask with a list of words.
HOTWORDS = "transcribe the speech to text. Keywords: {hotwords}"

# Of the tiny model.
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


@dataclass(frozen=True)
class TinyGraniteSpeech(TinySpec):
    """Sizes of a tiny `GraniteSpeechForConditionalGeneration`; the same seed gives the same weights.

    Args:
        words: the tokenizer's vocabulary, one token each.
        width: hidden size of encoder, projector and language model.
        encoder_layers, lm_layers: numbers of layers; an even number of the encoder's.
        max_positions: most tokens that the language model has positions for.
        seed: keys the initial weights.
    """

    words: tuple[str, ...] = tuple(DIGIT_WORDS)
    width: int = 128
    encoder_layers: int = 2
    lm_layers: int = 2
    heads: int = 4
    max_positions: int = 1024
    seed: int = 0

    def build(self) -> tuple[GraniteSpeechForConditionalGeneration, GraniteSpeechProcessor]:
        tokenizer = word_tokenizer(self.words)
        config = GraniteSpeechConfig(
            encoder_config=self._encoder_config(),
            projector_config=self._projector_config(),
            text_config=self._text_config(tokenizer),
            audio_token_index=tokenizer.get_vocab()[AUDIO_TOKEN],
            has_lora_adapter=False,
        )
        with keyed_weights(self):
            model = GraniteSpeechForConditionalGeneration(config)
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id

        processor = GraniteSpeechProcessor(
            # Of 80 mel bins: it saves another number, and does not read it back.
            GraniteSpeechFeatureExtractor(),
            tokenizer,
            audio_token=AUDIO_TOKEN,
            chat_template=_CHAT_TEMPLATE,
        )
        return model, processor

    def _encoder_config(self) -> dict[str, Any]:
        return {
            "input_dim": 160,
            "num_layers": self.encoder_layers,
            "hidden_dim": self.width,
            "num_heads": self.heads,
            "output_dim": 16,
            # Blocks of 400 ms, so that a short clip already has several.
            "context_size": 20,
            "max_pos_emb": 32,
        }

    def _projector_config(self) -> dict[str, Any]:
        return {
            "model_type": "blip_2_qformer",
            "hidden_size": self.width,
            "encoder_hidden_size": self.width,
            "num_hidden_layers": 1,
            "num_attention_heads": self.heads,
            "intermediate_size": 2 * self.width,
            "cross_attention_frequency": 1,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }

    def _text_config(self, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
        return {
            "model_type": "granite",
            "vocab_size": len(tokenizer),
            "hidden_size": self.width,
            "intermediate_size": 3 * self.width,
            "num_hidden_layers": self.lm_layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "max_position_embeddings": self.max_positions,
            # None of them 1, as in the published models.
            "embedding_multiplier": 4.0,
            "logits_scaling": 2.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": self.heads / self.width,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }


class GraniteSpeechPolicy(AudioPromptPolicy):
    """`GraniteSpeechForConditionalGeneration` behind the policy interface.

    The adapter beside the published weights, which its class switches on and off, is merged where the policy is loaded:
    it is on in rollout, reference and update, and an export holds it in its weights.

    The logits are divided by the language model's ``logits_scaling``, as Granite itself divides them; the class of
    transformers 5.24 leaves that out, and samples as if the temperature were 1/8.

    Args:
        init_from: a folder or hub id in Hugging Face layout, a Lightning checkpoint of ours, or the sizes of a tiny
            random model.
        finetune: what trains; by default projector and language model.
        dtype: of the weights, and of an export ("float32", "bfloat16"). Adapters are float32 on any; a fit refuses
            other trained weights in less.
        revision: hub revision.
        encoder_cache: keeps the encoder's outputs of clips that come again; wants a frozen encoder.
        instruction: what is asked of each clip; ``{language}`` in it stands for the English name of the row's language.
        system: the message before it; None is none. A chat template that writes the date of today into a prompt
            without one is refused: a run that goes on tomorrow would have another prompt.
        hotwords: what is asked of a clip whose row has hotwords, which ``{hotwords}`` in it stands for; ``{language}``
            as in ``instruction``.
    """

    family = Family(
        TinyGraniteSpeech, GraniteSpeechForConditionalGeneration, GraniteSpeechProcessor
    )

    def __init__(
        self,
        init_from: str | TinyGraniteSpeech,
        finetune: Finetune | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        encoder_cache: EncoderCache | None = None,
        instruction: str = INSTRUCTION,
        system: str | None = None,
        hotwords: str = HOTWORDS,
    ) -> None:
        super().__init__()
        self.instruction = instruction
        self.hotwords = checked_instruction("GraniteSpeechPolicy", hotwords)
        self.system = system
        self._load(init_from, dtype, revision)
        # It is in the weights by now.
        self.model.config.has_lora_adapter = False
        self._check_processor()
        self._make_ready(finetune, encoder_cache)

    def _check_processor(self) -> None:
        """See at once that the processor fits the model, and that its template asks for a transcript."""
        if isinstance(self.processor, TokenizerOutline):
            return
        config = self.model.config
        extractor = self.extractor
        require_features(
            self.start.source,
            sampling_rate=(extractor.sampling_rate, _RATE_HZ),
            # Two of 10 ms make a frame.
            n_mels=(2 * extractor.melspec_kwargs["n_mels"], config.encoder_config.input_dim),
            projector_window_size=(extractor.projector_window_size, config.window_size),
            projector_downsample_rate=(extractor.projector_downsample_rate, config.downsample_rate),
        )
        template = self.processor.chat_template or self.tokenizer.chat_template or ""
        if self.system is None and "strftime_now" in str(template):
            raise WeightsError(
                f"{self.start.source}: its chat template writes the date of today into a prompt without a system "
                "message; set the policy's system to the message of the model card"
            )
        self.check_request()

    def _write(self, folder: str, adapter: Adapter | None = None) -> None:
        config = self.model.config
        config.has_lora_adapter = adapter is not None
        try:
            super()._write(folder, adapter)
        finally:
            config.has_lora_adapter = False

    # --- its modules

    @property
    def audio_tower(self) -> Any:
        return self.model.model.encoder

    @property
    def projector(self) -> Any:
        return self.model.model.projector

    @property
    def extractor(self) -> Any:
        return self.processor.audio_processor

    def train(self, mode: bool = True) -> Self:
        """Train mode but for the encoder: its batch norm would move, also where the encoder is frozen."""
        super().train(mode)
        self.audio_tower.eval()
        return self

    def _logits(self, hidden: Tensor, allowed: Tensor) -> Tensor:
        # The head is linear, and has no bias.
        scaling = self.model.config.text_config.logits_scaling
        return super()._logits(hidden / scaling, allowed)

    # --- clips

    @property
    def min_samples(self) -> int:
        return _MIN_SAMPLES

    @property
    def max_seconds(self) -> float:
        """Half of the language model's positions: the other half is for prompt and transcript."""
        config = self.model.config
        per_second = _FRAMES_PER_S / config.downsample_rate
        return config.text_config.max_position_embeddings / 2 / per_second

    def read(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        # One by one: the extractor pads samples, and the window at a clip's end would hear the padding.
        rows = [self.extractor([clip.float()])["input_features"][0] for clip in clips]
        return padded_rows(rows)

    def hear(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        inputs = inputs.to(self.audio_tower.input_linear.weight.dtype)

        # It knows no padding: attention and convolution would both reach into it.
        def encoded(rows: Tensor) -> Tensor:
            return self.audio_tower(rows).last_hidden_state

        return padded_rows(by_length(encoded, inputs, mask.sum(-1).tolist()))

    def num_places(self, keep: Tensor) -> list[int]:
        config = self.model.config
        queries = config.window_size // config.downsample_rate
        return [math.ceil(num / config.window_size) * queries for num in keep.sum(-1).tolist()]

    def project(self, features: Tensor, keep: Tensor) -> Tensor:
        # Each window by itself; the last one of a clip is filled with zeros, and so is what is behind it.
        projected = self.projector(features)
        places = torch.tensor(self.num_places(keep), device=features.device)
        numbers = torch.arange(projected.shape[1], device=features.device)
        return projected[numbers < places[:, None]]

    def example_inputs(self, num_prompts: int, seconds: float) -> tuple[Tensor, Tensor]:
        num_frames = (int(seconds * _RATE_HZ) // 160 + 1) // 2
        inputs = torch.empty(num_prompts, num_frames, self.model.config.encoder_config.input_dim)
        return inputs, torch.ones(num_prompts, num_frames, dtype=torch.bool)

    def request(self, lang: str) -> str:
        return self._asked(self.instruction.replace("{language}", english_name(lang)))

    def hotword_request(self, lang: str, words: Sequence[str]) -> str:
        return self._asked(instruction_with(self.hotwords, lang, words))

    def _asked(self, asked: str) -> str:
        messages = [{"role": "user", "content": f"{self.processor.audio_token}{asked}"}]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
        return str(
            self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        )
