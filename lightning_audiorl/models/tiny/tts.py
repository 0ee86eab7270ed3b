"""A tiny causal language model over text and speech tokens, with random weights, for a system trained from nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lightning_audiorl.models.tiny.asr import (
    PAD_TOKEN,
    START_TOKEN,
    STOP_TOKEN,
    TINY_SPECS,
    TinyCausalLM,
    word_tokenizer,
)
from lightning_audiorl.models.tts.templates import PlainTemplate
from lightning_audiorl.ops.randomness import key_to_seed

_UNKNOWN_TOKEN = "<|unk|>"


@dataclass(frozen=True)
class TinySpeechLM(TinyCausalLM):
    """Sizes of a tiny `LlamaForCausalLM` that speaks; the same seed gives the same weights.

    Args:
        words: the text vocabulary, one token each; not read where there are ``characters``.
        width: hidden size.
        layers: number of layers.
        max_positions: most tokens, prompt included.
        seed: keys the initial weights.
        num_codes: the codec's cardinality.
        characters: the text vocabulary as characters, one token each, the space among them where texts have any.
    """

    layers: int = 4
    max_positions: int = 1024
    num_codes: int = 512
    characters: str = ""


TINY_SPECS[TinySpeechLM.__name__] = TinySpeechLM


def character_tokenizer(characters: str, more_special: list[str]) -> PreTrainedTokenizerFast:
    """One token per character; ids 0-3 are pad, start, stop and unknown, ``more_special`` come after the characters."""
    special = [PAD_TOKEN, START_TOKEN, STOP_TOKEN, _UNKNOWN_TOKEN]
    vocabulary = {
        token: i for i, token in enumerate([*special, *dict.fromkeys(characters), *more_special])
    }
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=_UNKNOWN_TOKEN))
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        bos_token=START_TOKEN,
        eos_token=STOP_TOKEN,
        unk_token=_UNKNOWN_TOKEN,
        extra_special_tokens=more_special,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def build_speech_lm(spec: TinySpeechLM) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A random model and its tokenizer for `PlainTemplate`, as ``from_pretrained`` would return them."""
    codes = [PlainTemplate.speech_token.format(code) for code in range(spec.num_codes)]
    more_special = [PlainTemplate.speech_start, *codes]
    if spec.characters:
        tokenizer = character_tokenizer(spec.characters, more_special)
    else:
        tokenizer = word_tokenizer(spec.words, more_special)
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(
            key_to_seed("tiny_speech", *(str(value) for value in asdict(spec).values())) % 2**32
        )
        model = LlamaForCausalLM(config)
    return model, tokenizer
