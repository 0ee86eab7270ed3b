"""Tiny models of the real classes, with random weights and a word-level tokenizer of their own, for CPU work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from lightning_audiorl.ops.randomness import key_to_seed

DIGIT_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
AUDIO_TOKEN, START_TOKEN, STOP_TOKEN, PAD_TOKEN = (
    "<|object_ref_start|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
)
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


@dataclass(frozen=True)
class TinyWhisper:
    """Sizes of a tiny `WhisperForConditionalGeneration`; the same seed gives the same weights.

    Args:
        words: the tokenizer's vocabulary, one token each.
        width: hidden size of encoder and decoder.
        encoder_layers, decoder_layers: numbers of layers.
        chunk_length_s: length that every clip is padded to, in whole seconds (Whisper's own is 30).
        num_mel_bins: of the features.
        max_target_positions: most decoder tokens, prompt included.
        seed: keys the initial weights.
    """

    words: tuple[str, ...] = tuple(DIGIT_WORDS)
    width: int = 128
    encoder_layers: int = 2
    decoder_layers: int = 2
    heads: int = 4
    chunk_length_s: int = 8
    num_mel_bins: int = 40
    max_target_positions: int = 128
    seed: int = 0


@dataclass(frozen=True)
class TinyCausalLM:
    """Sizes of a tiny `LlamaForCausalLM`; the same seed gives the same weights.

    Args:
        words: the tokenizer's vocabulary, one token each.
        width: hidden size.
        layers: number of layers.
        max_positions: most tokens, prompt included.
        seed: keys the initial weights.
    """

    words: tuple[str, ...] = tuple(DIGIT_WORDS)
    width: int = 128
    layers: int = 2
    heads: int = 4
    max_positions: int = 512
    seed: int = 0


TinySpec = TinyFunAsrNano | TinyWhisper | TinyCausalLM
#: By class name, which is what a checkpoint records.
TINY_SPECS: dict[str, type[TinySpec]] = {
    kind.__name__: kind for kind in (TinyFunAsrNano, TinyWhisper, TinyCausalLM)
}


def word_tokenizer(
    words: Sequence[str], more_special: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """One token per word; ids 0-4 are pad, start, stop, audio and unknown, ``more_special`` come after the words."""
    special = [PAD_TOKEN, START_TOKEN, STOP_TOKEN, AUDIO_TOKEN, "<|unk|>"]
    vocabulary = {
        token: i for i, token in enumerate([*special, *dict.fromkeys(words), *more_special])
    }
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        bos_token=START_TOKEN,
        eos_token=STOP_TOKEN,
        unk_token="<|unk|>",
        extra_special_tokens=[AUDIO_TOKEN, *more_special],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


@contextmanager
def _keyed_weights(spec: TinySpec) -> Iterator[None]:
    """Weights made inside depend on the spec alone; the global random state is as before after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(
            key_to_seed("tiny", *(str(value) for value in asdict(spec).values())) % 2**32
        )
        yield


def build_fun_asr_nano(
    spec: TinyFunAsrNano,
) -> tuple[FunAsrNanoForConditionalGeneration, FunAsrNanoProcessor]:
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
        audio_token_id=tokenizer.get_vocab()[AUDIO_TOKEN],
    )
    with _keyed_weights(spec):
        model = FunAsrNanoForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    processor = FunAsrNanoProcessor(
        FunAsrNanoFeatureExtractor(), tokenizer, chat_template=_CHAT_TEMPLATE
    )
    return model, processor


def build_whisper(spec: TinyWhisper) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """A random model and its processor, as ``from_pretrained`` would return them."""
    # Behind the words, as in Whisper's own vocabulary: ids after <|notimestamps|> count as timestamps.
    control = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    tokenizer = word_tokenizer(spec.words, control)
    start, english, transcribe, no_timestamps = (tokenizer.get_vocab()[token] for token in control)
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "decoder_start_token_id": start,
    }
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=spec.num_mel_bins,
        d_model=spec.width,
        encoder_layers=spec.encoder_layers,
        decoder_layers=spec.decoder_layers,
        encoder_attention_heads=spec.heads,
        decoder_attention_heads=spec.heads,
        encoder_ffn_dim=4 * spec.width,
        decoder_ffn_dim=4 * spec.width,
        max_source_positions=50 * spec.chunk_length_s,
        max_target_positions=spec.max_target_positions,
        dropout=0.0,
        begin_suppress_tokens=None,
        **ends,
    )
    with _keyed_weights(spec):
        model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        **ends,
        is_multilingual=True,
        lang_to_id={"<|en|>": english},
        task_to_id={"transcribe": transcribe},
        no_timestamps_token_id=no_timestamps,
        max_length=spec.max_target_positions,
    )
    extractor = WhisperFeatureExtractor(
        feature_size=spec.num_mel_bins, chunk_length=spec.chunk_length_s
    )
    return model, WhisperProcessor(extractor, tokenizer)


def build_causal_lm(spec: TinyCausalLM) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A random model and its tokenizer, as ``from_pretrained`` would return them."""
    tokenizer = word_tokenizer(spec.words)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.width,
        intermediate_size=3 * spec.width,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        max_position_embeddings=spec.max_positions,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with _keyed_weights(spec):
        model = LlamaForCausalLM(config)
    return model, tokenizer
