"""Qwen2-Audio (arXiv 2407.10759): Whisper's encoder with pooling, a linear projector, any causal language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutput

from lightning_audiorl.languages import english_name
from lightning_audiorl.models.decoding.audio_prompt import AudioContext, AudioPromptPolicy
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
from lightning_audiorl.weights.families import first_line
from lightning_audiorl.weights.tensors import WeightsError

_RATE_HZ = 16_000
_HOP_SAMPLES = 160

# Two audio tokens: transformers takes a single one for a prompt whose audio is still to be expanded.
_MIN_SAMPLES = 6 * _HOP_SAMPLES + 1

# The chat template around the audio, and the instruction.
_USUAL_TEXT_TOKENS = 30

#: Asked of a checkpoint whose chat template has no instruction of its own.
INSTRUCTION = "Transcribe the speech."

# Of the tiny model.
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|object_ref_start|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_start|>{% endfor %}"
)


@dataclass(frozen=True)
class TinyQwen2Audio(TinySpec):
    """Sizes of a tiny `Qwen2AudioForConditionalGeneration` around a Llama; the same seed gives the same weights.

    Args:
        words: the tokenizer's vocabulary, one token each.
        width: hidden size of encoder and language model.
        encoder_layers, lm_layers: numbers of layers.
        chunk_length_s: longest clip, in whole seconds (the family's own is 30).
        num_mel_bins: of the features.
        seed: keys the initial weights.
    """

    words: tuple[str, ...] = tuple(DIGIT_WORDS)
    width: int = 128
    encoder_layers: int = 2
    lm_layers: int = 3
    heads: int = 4
    chunk_length_s: int = 8
    num_mel_bins: int = 40
    seed: int = 0

    def build(self) -> tuple[Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor]:
        tokenizer = word_tokenizer(self.words)
        config = Qwen2AudioConfig(
            audio_config=self._audio_config(),
            text_config=self._text_config(tokenizer),
            audio_token_index=tokenizer.get_vocab()[AUDIO_TOKEN],
        )
        # The head is a matrix of its own, whatever a configuration says.
        config.tie_word_embeddings = False
        with keyed_weights(self):
            model = Qwen2AudioForConditionalGeneration(config)

        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        extractor = WhisperFeatureExtractor(
            feature_size=self.num_mel_bins,
            chunk_length=self.chunk_length_s,
            return_attention_mask=True,
        )
        processor = Qwen2AudioProcessor(
            extractor, tokenizer, chat_template=_CHAT_TEMPLATE, audio_token=AUDIO_TOKEN
        )
        return model, processor

    def _audio_config(self) -> dict[str, Any]:
        return {
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": self.num_mel_bins,
            "d_model": self.width,
            "encoder_layers": self.encoder_layers,
            "encoder_attention_heads": self.heads,
            "encoder_ffn_dim": 4 * self.width,
            # 20 ms for each position, before pooling.
            "max_source_positions": 50 * self.chunk_length_s,
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
            # Room for the frames, the prompt around them and the completion.
            "max_position_embeddings": 100 * self.chunk_length_s,
            "tie_word_embeddings": False,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }


@dataclass
class _TrueFrames:
    """The encoder's forward over the longest clip of a batch rather than over whole windows.

    The family masks what lies behind a clip's end, so that only rounding tells the two apart. Whole windows go the
    encoder's own way.
    """

    encoder: nn.Module
    whole: Callable[..., BaseModelOutput]

    def __call__(
        self, input_features: Tensor, attention_mask: Tensor | None = None, **how: Any
    ) -> BaseModelOutput:
        encoder: Any = self.encoder
        if input_features.shape[-1] == 2 * encoder.max_source_positions:
            return self.whole(input_features, attention_mask=attention_mask, **how)

        # The last position would see the end of the features, where there is none.
        states = nn.functional.gelu(encoder.conv1(input_features))
        states = nn.functional.gelu(encoder.conv2(states))[..., :-1].transpose(1, 2)
        states = states + encoder.embed_positions.weight[: states.shape[1]]
        states = nn.functional.dropout(states, p=encoder.dropout, training=encoder.training)

        for layer in encoder.layers:
            states = layer(states, attention_mask)

        pooled = encoder.avg_pooler(states.transpose(1, 2)).transpose(1, 2)
        return BaseModelOutput(last_hidden_state=encoder.layer_norm(pooled))


class Qwen2AudioPolicy(AudioPromptPolicy):
    """`Qwen2AudioForConditionalGeneration` behind the policy interface; ``audiorl assemble`` makes one of parts.

    A prompt is what the checkpoint's chat template makes of one clip and an instruction. Clips beyond the window of the
    feature extractor, 30 s, are refused: the family cuts them without a word.

    Args:
        init_from: a folder or hub id in Hugging Face layout, a Lightning checkpoint of ours, or the sizes of a tiny
            random model.
        finetune: what trains; by default projector and language model.
        dtype: of the weights, and of an export ("float32", "bfloat16"). Adapters are float32 on any; a fit refuses
            other trained weights in less.
        revision: hub revision.
        instruction: what is asked of each clip; ``{language}`` in it stands for the English name of the row's language.
            None is the chat template's own where it has one, as that of an assembled folder, and else "Transcribe the
            speech."
        encoder_cache: keeps the encoder's outputs of clips that come again; wants a frozen encoder.
        hotwords: what is asked of a clip whose row has hotwords, which ``{hotwords}`` in it stands for, such as
            "Transcribe the speech. Keywords: {hotwords}"; ``{language}`` as in ``instruction``. None refuses such rows:
            the model card has no form for them.
    """

    family = Family(TinyQwen2Audio, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor)

    def __init__(
        self,
        init_from: str | TinyQwen2Audio,
        finetune: Finetune | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        instruction: str | None = None,
        encoder_cache: EncoderCache | None = None,
        hotwords: str | None = None,
    ) -> None:
        super().__init__()
        self.hotwords = checked_instruction("Qwen2AudioPolicy", hotwords)
        self._load(init_from, dtype, revision)
        self.instruction = instruction
        self._check_processor()

        encoder = self.model.model.audio_tower
        encoder.forward = _TrueFrames(encoder, encoder.forward)
        self._make_ready(finetune, encoder_cache)
        # Sinusoids: they stay as they are, also where the encoder trains.
        encoder.embed_positions.requires_grad_(False)

    def _check_processor(self) -> None:
        """See at once that the processor fits the model, and that its template asks for a transcript."""
        if isinstance(self.processor, TokenizerOutline):
            return
        config = self.model.config
        extractor = self.processor.feature_extractor
        source = self.start.source
        require_features(
            source,
            sampling_rate=(extractor.sampling_rate, _RATE_HZ),
            feature_size=(extractor.feature_size, config.audio_config.num_mel_bins),
            # Two windows of 10 ms for each position of the encoder.
            nb_max_frames=(extractor.nb_max_frames, 2 * config.audio_config.max_source_positions),
        )
        if self.processor.audio_token_id != config.audio_token_id:
            raise WeightsError(
                f"{source}: the audio token of its processor is {self.processor.audio_token_id}, and its model wants "
                f"{config.audio_token_id}; copy the tokenizer of the model that this one was made of"
            )

        try:
            if self.instruction is None and not self._has_own_instruction():
                self.instruction = INSTRUCTION
        except Exception as error:
            raise WeightsError(
                f"{source}: its chat template is missing or broken ({first_line(error)}); copy chat_template.jinja "
                "from the model that this one was made of"
            ) from error
        self.check_request()

    def _has_own_instruction(self) -> bool:
        """Whether the template says something by itself where a message has no text."""
        return self._rendered(None) != self._rendered("")

    @property
    def max_seconds(self) -> float:
        """One window of the feature extractor, 30 s."""
        num_windows = 2 * self.model.config.audio_config.max_source_positions
        return num_windows * _HOP_SAMPLES / _RATE_HZ

    @property
    def min_samples(self) -> int:
        return _MIN_SAMPLES

    def read(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        made = self.extractor(
            [clip.numpy() for clip in clips],
            sampling_rate=self.extractor.sampling_rate,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        return made["input_features"], made["attention_mask"]

    def hear(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        # Two windows of 10 ms for each position of the encoder.
        return self._encoded(inputs, (mask.sum(-1) - 1) // 2 + 1)

    def _encoded(self, features: Tensor, num_positions: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder output [B, F, E] of mel features [B, M, W], and which of its frames are a clip's own."""
        encoder = self.model.model.audio_tower
        longest = int(num_positions.max())

        # Those that the last position reads; a whole window goes as it is.
        features = features[..., : 2 * longest + 1].to(encoder.conv1.weight.dtype)
        is_own = torch.arange(longest, device=features.device) < num_positions[:, None]
        mask = create_bidirectional_mask(
            config=encoder.config,
            inputs_embeds=features.new_zeros(len(features), longest, 1),
            attention_mask=is_own.long(),
        )
        encoded = encoder(input_features=features, attention_mask=mask).last_hidden_state

        # Pooling joins two positions; one that is left over belongs to no frame.
        keep = is_own[:, 1::2].contiguous()
        return torch.where(keep[..., None], encoded, 0), keep

    def project(self, features: Tensor, keep: Tensor) -> Tensor:
        return self.projector(features)[keep]

    def example_inputs(self, num_prompts: int, seconds: float) -> tuple[Tensor, Tensor]:
        config = self.model.config.audio_config
        num_windows = -(-int(seconds * _RATE_HZ) // _HOP_SAMPLES)
        inputs = torch.empty(num_prompts, config.num_mel_bins, 2 * config.max_source_positions)
        return inputs, torch.ones(num_prompts, num_windows, dtype=torch.long)

    def example_context(
        self, num_prompts: int, seconds: float, text_tokens: int | None = None
    ) -> AudioContext:
        num_samples = int(seconds * _RATE_HZ)
        num_windows = -(-num_samples // _HOP_SAMPLES)
        longest = 2 * self.model.config.audio_config.max_source_positions
        if num_samples < _MIN_SAMPLES or num_windows > longest:
            raise ValueError(
                f"{seconds} s of audio are {num_windows} windows of 10 ms; the encoder takes 7 to {longest}"
            )

        # Nothing is masked: all clips have one length. So a plan needs no values.
        inputs, mask = self.example_inputs(num_prompts, seconds)
        num_positions = (mask.shape[1] - 1) // 2 + 1
        inputs = inputs[..., : 2 * num_positions + 1].to(self.audio_tower.conv1.weight.dtype)
        encoded = self.audio_tower(input_features=inputs, attention_mask=None).last_hidden_state
        keep = torch.ones(num_prompts, num_positions // 2, dtype=torch.bool)

        text = [self.stop_ids[0]] * (_USUAL_TEXT_TOKENS if text_tokens is None else text_tokens)
        tokens = [self.audio_token_id] * keep.shape[1] + text
        ids = [str(number) for number in range(num_prompts)]
        return AudioContext(ids, [seconds] * num_prompts, encoded, keep, [tokens] * num_prompts)

    def request(self, lang: str) -> str:
        asked = self.instruction
        if asked is not None:
            asked = asked.replace("{language}", english_name(lang))
        return self._rendered(asked)

    def hotword_request(self, lang: str, words: Sequence[str]) -> str:
        return self._rendered(instruction_with(self.hotwords, lang, words))

    def _rendered(self, instruction: str | None) -> str:
        """The chat template around one clip and an instruction; None is a message of audio alone."""
        # Which clip it is does not show in the text.
        content = [{"type": "audio", "audio": "clip.wav"}]
        if instruction is not None:
            content.append({"type": "text", "text": instruction})
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return str(text)
