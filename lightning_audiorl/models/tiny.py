"""Tiny models of the real classes, with random weights and a word-level tokenizer of their own, for CPU work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    FunAsrNanoConfig,
    FunAsrNanoFeatureExtractor,
    FunAsrNanoForConditionalGeneration,
    FunAsrNanoProcessor,
    PreTrainedTokenizerFast,
)

from lightning_audiorl.ops.randomness import key_to_seed

DIGIT_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
AUDIO_TOKEN, START_TOKEN, STOP_TOKEN, PAD_TOKEN = "<|object_ref_start|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|object_ref_start|>{% endif %}{% endfor %}<|im_start|>{% endfor %}"
)


@dataclass(frozen=True)
class TinyFunAsrNano:
    """Sizes of a tiny `FunAsrNanoForConditionalGeneration`; the same seed gives the same weights.

    Args:
        words: the tokenizer's vocabulary, one token each.
        width: hidden size of encoder and language model.
        encoder_layers, lm_layers: numbers of layers.
        max_frames: longest input in 60 ms frames.
        seed: keys the initial weights.
    """

    words: tuple[str, ...] = tuple(DIGIT_WORDS)
    width: int = 128
    encoder_layers: int = 4
    lm_layers: int = 3
    heads: int = 4
    max_frames: int = 1024
    seed: int = 0


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token per word; ids 0-4 are pad, start, stop, audio and unknown."""
    special = [PAD_TOKEN, START_TOKEN, STOP_TOKEN, AUDIO_TOKEN, "<|unk|>"]
    vocabulary = {token: i for i, token in enumerate([*special, *dict.fromkeys(words)])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        bos_token=START_TOKEN,
        eos_token=STOP_TOKEN,
        unk_token="<|unk|>",
        extra_special_tokens=[AUDIO_TOKEN],
        clean_up_tokenization_spaces=False,
    )


def build_fun_asr_nano(spec: TinyFunAsrNano) -> tuple[FunAsrNanoForConditionalGeneration, FunAsrNanoProcessor]:
    """A random model and its processor, as ``from_pretrained`` would return them."""
    tokenizer = word_tokenizer(spec.words)
    width = spec.width
    config = FunAsrNanoConfig(
        audio_config={
            "model_type": "fun_asr_nano_encoder",
            "hidden_size": width,
            "num_attention_heads": spec.heads,
            "intermediate_size": 4 * width,
            "num_hidden_layers": spec.encoder_layers,
            "num_timestamp_prediction_layers": 0,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "max_position_embeddings": spec.max_frames + 1,
        },
        adaptor_config={
            "hidden_size": width,
            "num_attention_heads": spec.heads,
            "intermediate_size": width // 4,
            "num_hidden_layers": 1,
            "projector_hidden_size": 2 * width,
        },
        text_config={
            "model_type": "qwen3",
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": spec.lm_layers,
            "num_attention_heads": spec.heads,
            "num_key_value_heads": spec.heads,
            "head_dim": width // spec.heads,
            "max_position_embeddings": 4 * spec.max_frames,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        audio_token_id=tokenizer.convert_tokens_to_ids(AUDIO_TOKEN),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_to_seed("tiny", *(str(value) for value in asdict(spec).values())) % 2**32)
        model = FunAsrNanoForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    processor = FunAsrNanoProcessor(FunAsrNanoFeatureExtractor(), tokenizer, chat_template=_CHAT_TEMPLATE)
    return model, processor
