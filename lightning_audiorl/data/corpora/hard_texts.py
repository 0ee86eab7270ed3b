"""Texts that models of speech synthesis stumble over, made up by rules and keyed draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from lightning_audiorl.data.corpora.espeak import (
    SLOTS,
    TEMPLATES,
    WORDS,
    Part,
    draw_sentence,
    sentence_part,
    slot_words,
)
from lightning_audiorl.data.corpora.fsdd import DIGIT_WORDS
from lightning_audiorl.data.corpora.texts import SECONDS_PER_CHAR
from lightning_audiorl.data.draws import pick, settings_name, whole
from lightning_audiorl.data.manifest.source import RowSource, check_index
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.types import Utterance

VocabularyName = Literal["digits", "espeak", "english"]

#: Whole sentences of words that sound alike.
TONGUE_TWISTERS = (
    "six slim sisters sift sixty sacks of silver seeds",
    "thirty three thrifty thieves thought they thrilled the throne",
    "which wristwatch did the witch's wrist switch",
    "fresh fried flat fish float past five frantic frogs",
    "greek grapes grow great but great grapes grow green",
    "a brisk brave brigadier brandished broad bright blades",
    "unique new york needs new unique yolks",
    "red lorry leads a yellow lorry round the rural rally",
    "the sixth sheik's sick sheep still sleeps",
    "toy boats bob by the blue buoy, blue buoys bob by the toy boat",
    "specific pacific species spread especially swiftly",
    "she should shun the shining sunshine on saturdays",
    "black back brakes block the back black bike",
    "three free throws, free three throws, throw three freely",
    "the chief chef's cheap sheep chews cheese chips",
    "literally rarely rural, rarely literally royal",
    "quick kiss, quicker kick, quickest quick kick",
    "lesser leather never weathered wetter weather",
    "truly rural brewery rollers rarely ruin real rye",
    "eleven benevolent elephants envy seven elegant elves",
)

#: Words that English says seldom, or spells otherwise than it speaks them.
RARE_WORDS = (
    *(
        "anemone",
        "aluminium",
        "bivouac",
        "choir",
        "colonel",
        "cupboard",
        "draught",
        "ennui",
        "epitome",
        "facade",
    ),
    *(
        "fuchsia",
        "gauge",
        "gnome",
        "hyperbole",
        "isthmus",
        "jalapeno",
        "knackered",
        "liaison",
        "mnemonic",
        "narwhal",
    ),
    *(
        "otorhinolaryngology",
        "phlegm",
        "pneumonia",
        "quay",
        "queue",
        "quinoa",
        "rendezvous",
        "sarcophagus",
        "scythe",
    ),
    *(
        "sesquipedalian",
        "subpoena",
        "syzygy",
        "thyme",
        "triskaidekaphobia",
        "uvula",
        "vichyssoise",
        "wharf",
        "yacht",
    ),
    *("xylophone", "zeitgeist"),
)


@dataclass(frozen=True)
class Vocabulary:
    """What hard texts are made of.

    Args:
        words: ordinary words.
        numbers: words for numbers.
        alike: groups of words that sound alike, for twisters made by rule; each has two words or more.
        twisters: whole tongue twisters.
        rare: rare words.
        sentences: whether ordinary sentences come from the espeak grammar, instead of words in any order.
    """

    words: tuple[str, ...]
    numbers: tuple[str, ...]
    alike: tuple[tuple[str, ...], ...] = ()
    twisters: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()
    sentences: bool = False


#: Groups of digits that sound alike.
_ALIKE_DIGITS = (
    ("five", "nine", "four"),
    ("six", "seven"),
    ("two", "zero"),
    ("one", "nine"),
    ("three", "eight"),
)

#: Groups of words of the espeak grammar that sound alike.
_ALIKE_WORDS = (
    ("paris", "peter", "put"),
    ("martin", "maria", "madrid", "map"),
    ("ten", "tell", "turn", "train"),
    ("boston", "box", "book", "black", "blue"),
    ("six", "simon", "station", "seven"),
    ("four", "for", "from"),
    ("today", "tuesday", "two", "to"),
    ("leave", "lima", "lucas", "light"),
    ("tomorrow", "tonight", "tokyo"),
)


def rare_grammar_words(share: float = 0.25) -> tuple[str, ...]:
    """The share of the espeak grammar's words that are least frequent in its sentences, in order of the alphabet.

    Example:
        >>> rare_grammar_words(0.05)
        ('friday', 'monday', 'saturday', 'sunday', 'thursday')
    """
    counts = dict.fromkeys(WORDS, 0.0)
    for template in TEMPLATES:
        for place in template.split():
            words = slot_words(place)
            for word in words:
                counts[word] += 1 / len(words)

    rarest = sorted(WORDS, key=lambda word: (counts[word], word))
    num_rare = round(share * len(rarest))
    return tuple(sorted(rarest[:num_rare]))


@cache
def words_of(name: VocabularyName) -> Vocabulary:
    """Digits, the words of the espeak grammar, or English at large (the grammar's sentences, rarer words besides).

    Raises:
        ValueError: another name.

    Example:
        >>> words_of("digits").words[:3]
        ('zero', 'one', 'two')
    """
    if name == "digits":
        return Vocabulary(words=DIGIT_WORDS, numbers=DIGIT_WORDS, alike=_ALIKE_DIGITS)

    # The grammar has no tongue twisters, so its own are made by rule.
    if name == "espeak":
        return Vocabulary(
            words=WORDS,
            numbers=SLOTS["NUMBER"],
            alike=_ALIKE_WORDS,
            rare=rare_grammar_words(),
            sentences=True,
        )

    if name == "english":
        return Vocabulary(
            words=WORDS,
            numbers=SLOTS["NUMBER"],
            alike=_ALIKE_WORDS,
            twisters=TONGUE_TWISTERS,
            rare=RARE_WORDS,
            sentences=True,
        )

    raise ValueError(f"hard texts: vocabulary must be digits, espeak or english, got {name!r}")


class _Dice:
    """Draws from one generator; ranges include both ends."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def share(self) -> float:
        draw = torch.rand((), generator=self.generator, dtype=torch.float64)
        return float(draw)

    def one(self, items: Sequence[str]) -> str:
        return pick(items, self.share())

    def number(self, low: int, high: int) -> int:
        return whole((low, high), self.share())

    def some(self, items: Sequence[str], low: int, high: int) -> list[str]:
        num_items = self.number(low, high)
        return [self.one(items) for _ in range(num_items)]

    def sentence(self, words: Vocabulary) -> list[str]:
        if words.sentences:
            return draw_sentence(self.generator, "train", (3, 8)).split()
        return self.some(words.words, 3, 8)


def _repeated(words: Vocabulary, dice: _Dice) -> list[str]:
    """A phrase of one to three words, three to eight times in a row, with up to two other words around."""
    phrase = dice.some(words.words, 1, 3)
    before = dice.some(words.words, 0, 1)
    repeated = phrase * dice.number(3, 8)
    after = dice.some(words.words, 0, 1)
    return [*before, *repeated, *after]


def _numbers(words: Vocabulary, dice: _Dice) -> list[str]:
    """Twelve to thirty numbers."""
    return dice.some(words.numbers, 12, 30)


def _twister(words: Vocabulary, dice: _Dice) -> list[str]:
    """A tongue twister of the list, or six to twelve words that sound alike, none twice in a row."""
    if words.twisters and dice.number(0, 1):
        return dice.one(words.twisters).split()

    group = list(pick(words.alike, dice.share()))
    made = [dice.one(group)]
    for _ in range(dice.number(5, 11)):
        others = [word for word in group if word != made[-1]]
        made.append(dice.one(others))
    return made


def _rare(words: Vocabulary, dice: _Dice) -> list[str]:
    """Four to eight words, most of them rare."""
    made: list[str] = []
    for _ in range(dice.number(4, 8)):
        # Three in four are rare.
        rare = dice.number(0, 3) > 0
        choice = words.rare if rare else words.words
        made.append(dice.one(choice))
    return made


def _short(words: Vocabulary, dice: _Dice) -> list[str]:
    """One or two words."""
    return dice.some(words.words, 1, 2)


def _long(words: Vocabulary, dice: _Dice) -> list[str]:
    """Forty to eighty words, in sentences."""
    made: list[str] = []
    most = dice.number(40, 80)
    # A sentence has three words or more: with two to go the next one would be cut.
    while len(made) < most - 2:
        made += dice.sentence(words)
    return made[:most]


#: Makes the words of one text.
_Maker = Callable[[Vocabulary, _Dice], list[str]]

_MAKERS: dict[str, _Maker] = {
    "repeated": _repeated,
    "numbers": _numbers,
    "twister": _twister,
    "rare": _rare,
    "short": _short,
    "long": _long,
}
KINDS = tuple(_MAKERS)
#: Draws before a kind is said to have no text of the wanted part.
_MAX_DRAWS = 1000


class HardTexts(RowSource):
    """Hard texts as rows without audio; `TextSpeech` gives them speaker prompts.

    Row i depends on its index and on every argument but ``num_rows``; ``extra["kind"]`` says what it is:
    "repeated" phrases, long strings of "numbers", "twister"s (a list of tongue twisters, and words that sound alike),
    "rare" words, very "short" (1 or 2 words) and very "long" texts (40 to 80 words).

    Args:
        vocabulary: digits, espeak (words of the espeak grammar alone) or english.
        num_rows: how many texts.
        kinds: kinds to draw from, each as likely; None takes all that the vocabulary has (digits has no "rare").
        part: texts of this part alone, so that no text is in two parts (see `sentence_part`); None takes any.
        seed: another seed gives other texts.

    Raises:
        ValueError: unknown vocabulary, part or kind; a kind that the vocabulary does not have.

    Example:
        >>> row = HardTexts("digits", kinds=["twister"])[0]
        >>> row.text, row.extra["kind"]
        ('one nine one nine one nine one', 'twister')
    """

    def __init__(
        self,
        vocabulary: VocabularyName = "digits",
        num_rows: int = 1000,
        kinds: Sequence[str] | None = None,
        part: Part | None = None,
        seed: int = 0,
    ) -> None:
        self.vocabulary = vocabulary
        self.words = words_of(vocabulary)

        had = [kind for kind in KINDS if kind != "rare" or self.words.rare]
        self.kinds = tuple(had if kinds is None else kinds)
        unknown = [kind for kind in self.kinds if kind not in had]
        if unknown or not self.kinds:
            names = ", ".join(had)
            raise ValueError(
                f"HardTexts.kinds: {vocabulary} has {names}; got {unknown or list(self.kinds)}"
            )

        if num_rows < 1 or part not in (None, "train", "dev", "test"):
            raise ValueError(
                f"HardTexts: want num_rows >= 1 and part train, dev, test or none; got {num_rows}, {part!r}"
            )

        self.num_rows = num_rows
        self.part = part
        self.seed = seed
        name = settings_name(seed, self.kinds, part)
        self._name = f"hard-{vocabulary}-{name}"

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        check_index(index, self.num_rows, self)
        row_id = f"{self._name}-{index:06d}"
        dice = _Dice(keyed_generator(row_id, "text"))
        kind = dice.one(self.kinds)

        # Whether a text is of this part is only known once it is made.
        for _ in range(_MAX_DRAWS):
            text = " ".join(_MAKERS[kind](self.words, dice))
            if self.part is None or sentence_part(text) == self.part:
                return Utterance(
                    id=row_id,
                    segments=(),
                    text=text,
                    duration_s=len(text) * SECONDS_PER_CHAR,
                    extra={"kind": kind},
                )

        raise ValueError(
            f"HardTexts: no {kind} text of {self.vocabulary} found for the {self.part} part; name other kinds"
        )


def hard_texts(
    vocabulary: VocabularyName = "digits",
    num_texts: int = 100,
    kinds: Sequence[str] | None = None,
    part: Part | None = None,
    seed: int = 0,
) -> list[str]:
    """Texts that models of speech synthesis stumble over, as a list; `HardTexts` has them as rows.

    Args:
        vocabulary: digits, espeak (words of the espeak grammar alone) or english.
        num_texts: how many texts.
        kinds: kinds to draw from, each as likely; None takes all that the vocabulary has.
        part: texts of this part alone; None takes any.
        seed: another seed gives other texts.

    Raises:
        ValueError: unknown vocabulary, part or kind; a kind that the vocabulary does not have.

    Example:
        >>> hard_texts("digits", num_texts=2, kinds=["short"])
        ['seven', 'zero']
    """
    return [row.text for row in HardTexts(vocabulary, num_texts, kinds, part, seed)]
