"""Sentences of a small grammar: templates with slots, and which part of a corpus each sentence belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from lightning_audiorl.data.draws import pick
from lightning_audiorl.data.transforms.concatenate import join_texts
from lightning_audiorl.languages import WITHOUT_SPACES
from lightning_audiorl.ops.randomness import key_to_seed

Part = Literal["train", "dev", "test"]

#: Draws before the grammar is said to have no sentence of the wanted length and part.
_MAX_DRAWS = 10_000


def sentence_part(sentence: str) -> Part:
    """The one part whose rows may hold this sentence, whatever the seed: 80 % train, 10 % dev, 10 % test.

    Example:
        >>> sentence_part("call anna now"), sentence_part("bring the red book")
        ('train', 'dev')
    """
    bucket = key_to_seed("espeak sentence", sentence) % 10
    if bucket < 8:
        return "train"
    return "dev" if bucket == 8 else "test"


@dataclass(frozen=True)
class Grammar:
    """The sentences of one language that espeak-ng speaks.

    Args:
        lang: code of the language; its sentences have spaces between words, or none.
        templates: words and slots (capitals) with spaces between; a slot is filled by one word.
        slots: the words of each slot.
        names: the words of special value: what ``keywords`` of a row is taken from.
        voices: default voices of each part.

    Example:
        >>> slots = {"PLACE": ("北京", "上海"), "WHEN": ("今天",)}
        >>> grammar = Grammar("zh", ("WHEN 去 PLACE",), slots, names=("北京", "上海"), voices={})
        >>> grammar.characters, grammar.names_in("今天去上海")
        ('上京今北去天海', ('上海',))
    """

    lang: str
    templates: tuple[str, ...]
    slots: Mapping[str, tuple[str, ...]]
    names: tuple[str, ...]
    voices: Mapping[Part, tuple[str, ...]]

    def choices(self, place: str) -> tuple[str, ...]:
        """The words that may stand at a place of a template: those of a slot, or the word itself."""
        return self.slots.get(place, (place,))

    @property
    def words(self) -> tuple[str, ...]:
        """Every word of the grammar's sentences, in order."""
        words: set[str] = set()
        for template in self.templates:
            for place in template.split():
                words.update(self.choices(place))
        return tuple(sorted(words))

    @property
    def characters(self) -> str:
        """Every character of its words, in order: the vocabulary of a judge, or of a tiny model."""
        return "".join(sorted(set("".join(self.words))))

    def names_in(self, text: str) -> tuple[str, ...]:
        """The names in a text of its sentences, each once, in the order in which they come first.

        No name may lie within another, or across two neighbours, where the language has no spaces.
        """
        if self.lang not in WITHOUT_SPACES:
            named = [word for word in text.split() if word in self.names]
            return tuple(dict.fromkeys(named))
        found = [name for name in self.names if name in text]
        return tuple(sorted(found, key=text.find))

    def draw(self, generator: torch.Generator, part: Part, num_words: tuple[int, int]) -> str:
        """A sentence of ``part`` with ``num_words`` (lowest, highest) words; none of a slot's twice.

        Raises:
            ValueError: the grammar has no such sentence.
        """
        low, high = num_words
        templates = [template.split() for template in self.templates]
        fitting = [template for template in templates if low <= len(template) <= high]

        for _ in range(_MAX_DRAWS if fitting else 0):
            # Always as many draws, so that what follows from this generator does not depend on the template.
            draws = torch.rand(16, generator=generator, dtype=torch.float64)
            u_template, *shares = draws.tolist()
            template = pick(fitting, u_template)
            words = [
                pick(self.choices(place), share)
                for place, share in zip(template, shares, strict=False)
            ]
            sentence = join_texts(words, self.lang)

            filled = [
                word for word, place in zip(words, template, strict=True) if place in self.slots
            ]
            unique = len(set(filled)) == len(filled)
            if unique and sentence_part(sentence) == part:
                return sentence

        lengths = sorted({len(template) for template in templates})
        shortest = lengths[0]
        longest = lengths[-1]
        raise ValueError(
            f"espeak grammar: no {part} sentence has {num_words} words; it has {shortest} to {longest}"
        )
