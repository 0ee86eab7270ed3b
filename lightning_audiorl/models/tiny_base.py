"""What tiny models with random weights share: their base class, their tokenizers, their keyed weights.

A family's tiny model stands in the family's own file: a `TinySpec` with sizes and `build`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from unicodedata import east_asian_width

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence as InTurn
from tokenizers.pre_tokenizers import Split, WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from lightning_audiorl.ops.randomness import key_to_seed

DIGIT_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

AUDIO_TOKEN = "<|object_ref_start|>"
START_TOKEN = "<|im_start|>"
STOP_TOKEN = "<|im_end|>"
PAD_TOKEN = "<|endoftext|>"
UNKNOWN_TOKEN = "<|unk|>"

#: The tiny models of all families by class name, which is what a checkpoint records.
TINY_SPECS: dict[str, type[TinySpec]] = {}


@dataclass(frozen=True)
class TinySpec:
    """Sizes of a tiny model of a family's real class; the same sizes and seed give the same weights."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        TINY_SPECS[cls.__name__] = cls

    def build(self) -> tuple[Any, Any]:
        """A random model, and its processor or tokenizer, as ``from_pretrained`` would return them."""
        raise NotImplementedError(f"{type(self).__name__}.build")


@contextmanager
def keyed_weights(spec: TinySpec, kind: str = "tiny") -> Iterator[None]:
    """Weights made inside depend on ``spec`` and ``kind`` alone; the global random state is as before after."""
    values = [str(value) for value in asdict(spec).values()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_to_seed(kind, *values) % 2**32)
        yield


def word_tokenizer(
    words: Sequence[str], more_special: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """One token per word; ids 0-4 are pad, start, stop, audio and unknown, ``more_special`` come after the words.

    Words that are one Chinese, Japanese or Korean character need no spaces around them, and have none when they are
    written, unless there are other words beside them.

    Example:
        >>> word_tokenizer(["yes", "no"]).encode("no yes maybe")
        [6, 5, 4]
        >>> chinese = word_tokenizer(["你", "好"])
        >>> chinese.encode("你好"), chinese.decode([5, 6])
        ([5, 6], '你好')
    """
    special = [PAD_TOKEN, START_TOKEN, STOP_TOKEN, AUDIO_TOKEN, UNKNOWN_TOKEN]
    tokenizer = _word_level([*special, *dict.fromkeys(words), *more_special])
    tokenizer.pre_tokenizer = WhitespaceSplit()

    wide = [word for word in words if len(word) == 1 and east_asian_width(word) == "W"]
    if wide:
        one_of_them = Regex("[" + "".join(wide) + "]")
        tokenizer.pre_tokenizer = InTurn([WhitespaceSplit(), Split(one_of_them, "isolated")])
    if wide and len(wide) == len(words):
        tokenizer.decoder = Fuse()
    return _wrapped(tokenizer, [AUDIO_TOKEN, *more_special])


def character_tokenizer(
    characters: str, more_special: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """One token per character; ids 0-3 are pad, start, stop and unknown, ``more_special`` come after the characters.

    Example:
        >>> character_tokenizer("ab c").encode("ca b")
        [7, 4, 6, 5]
    """
    special = [PAD_TOKEN, START_TOKEN, STOP_TOKEN, UNKNOWN_TOKEN]
    tokenizer = _word_level([*special, *dict.fromkeys(characters), *more_special])
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = Fuse()
    return _wrapped(tokenizer, list(more_special))


def _word_level(tokens: Sequence[str]) -> Tokenizer:
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN_TOKEN))


def _wrapped(tokenizer: Tokenizer, more_special: list[str]) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        bos_token=START_TOKEN,
        eos_token=STOP_TOKEN,
        unk_token=UNKNOWN_TOKEN,
        extra_special_tokens=more_special,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
