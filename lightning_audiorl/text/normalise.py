"""Text normalisation: a named, replaceable step per language, which also says what counts as one unit of error."""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

Unit = Literal["word", "char"]

# <unk>, <|en|>, [PAD]: what a tokenizer writes and no person says.
_SPECIAL_TOKENS = re.compile(r"<[^<>\s]*>|\[(?:UNK|PAD|CLS|SEP|MASK)\]")
_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ`´", "'"))
# Characters that are a unit each: Chinese, Japanese, Korean, Thai, Lao, Burmese and Khmer ones.
_UNSPACED = re.compile(
    "([々〇\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])"
)


def split_units(text: str, unit: Unit) -> list[str]:
    """The words of a normalised text, or its characters.

    Example:
        >>> split_units("one two", "word"), split_units("abc", "char")
        (['one', 'two'], ['a', 'b', 'c'])
    """
    return text.split() if unit == "word" else list(text)


def _fold(text: str) -> str:
    """Special tokens out, one width (NFKC), one apostrophe, lower case."""
    text = _SPECIAL_TOKENS.sub(" ", text).translate(_APOSTROPHES)
    folded = unicodedata.normalize("NFKC", text).lower()
    # Lower case can take a letter apart: that of İ is an i and a dot.
    return unicodedata.normalize("NFKC", folded)


def _only_words(text: str) -> str:
    """Letters, marks, digits and apostrophes inside words; all else becomes one space."""
    kept = []
    for char in text:
        category = unicodedata.category(char)
        if char == "'" or category[0] in "LMN":
            kept.append(char)
        elif category != "Cf":
            # Not for characters that only steer how others are shown: they stand inside words.
            kept.append(" ")

    words = (word.strip("'") for word in "".join(kept).split())
    return " ".join(word for word in words if word)


class Normaliser(ABC):
    """Turns decoded or reference text into the form in which errors are counted.

    ``unit`` is what an error is counted in: words, or characters where words have no spaces.
    Normalising twice gives the same text as once. An empty or blank text becomes "".

    Example:
        >>> class Digits(Normaliser):
        ...     def normalise(self, text: str) -> str:
        ...         return " ".join(char for char in text if char.isdigit())
        >>> Digits().units("call 911!")
        ['9', '1', '1']
    """

    unit: ClassVar[Unit] = "word"

    @abstractmethod
    def normalise(self, text: str) -> str:
        """The text to be compared."""

    def units(self, text: str) -> list[str]:
        """The words or characters of ``normalise(text)``.

        Example:
            >>> CharacterNormaliser().units("你好。")
            ['你', '好']
        """
        return split_units(self.normalise(text), self.unit)


class WordNormaliser(Normaliser):
    """Any language that puts spaces between words.

    Lower case, NFKC; special tokens such as ``<unk>`` or ``<|en|>`` removed; punctuation becomes a space, so "3.5" is
    two words; apostrophes stay inside words ("don't").

    Example:
        >>> WordNormaliser().normalise("<|en|> Don’t panic: 3.5!")
        "don't panic 3 5"
    """

    def normalise(self, text: str) -> str:
        """Lower case, words alone."""
        return _only_words(_fold(text))


class EnglishNormaliser(WordNormaliser):
    """WordNormaliser, and accents dropped: "café" and "cafe" are the same English word.

    Example:
        >>> EnglishNormaliser().normalise("A naïve Café")
        'a naive cafe'
    """

    def normalise(self, text: str) -> str:
        """Lower case, words alone, no accents."""
        decomposed = unicodedata.normalize("NFKD", _fold(text))
        unaccented = "".join(char for char in decomposed if not "\u0300" <= char <= "\u036f")
        return _only_words(unicodedata.normalize("NFKC", unaccented))


class CharacterNormaliser(Normaliser):
    """Chinese, Japanese, Korean, Thai and the like: error counts are in characters (CER).

    NFKC makes full and half width the same; lower case; special tokens, punctuation and spaces removed.

    Example:
        >>> CharacterNormaliser().normalise("你好，ＡＢＣ！")
        '你好abc'
    """

    unit: ClassVar[Unit] = "char"

    def normalise(self, text: str) -> str:
        """Lower case, letters and digits alone."""
        return _only_words(_fold(text)).replace(" ", "").replace("'", "")


class MixedNormaliser(Normaliser):
    """Code-switched text: each character of a script without spaces is a unit, each other word is one.

    Errors over these units give what is called the mixed error rate.

    Example:
        >>> MixedNormaliser().normalise("我要 go home")
        '我 要 go home'
    """

    def normalise(self, text: str) -> str:
        """Lower case, characters and words with spaces between them."""
        spaced = _UNSPACED.sub(r" \1 ", _only_words(_fold(text)))
        return _only_words(spaced)


_WORDS = WordNormaliser()
_WITHOUT_SPACES = ("zh", "cmn", "yue", "wuu", "nan", "ja", "ko", "th", "lo", "my", "km")
_BY_LANGUAGE: dict[str, Normaliser] = {
    "en": EnglishNormaliser(),
    "mixed": MixedNormaliser(),
    "zh-en": MixedNormaliser(),
    "en-zh": MixedNormaliser(),
    **dict.fromkeys(_WITHOUT_SPACES, CharacterNormaliser()),
}


def normaliser_for(lang: str, overrides: Mapping[str, Normaliser] | None = None) -> Normaliser:
    """The normaliser of a language.

    Example:
        >>> [type(normaliser_for(lang)).__name__ for lang in ("en-GB", "zh_CN", "zh-en", "de")]
        ['EnglishNormaliser', 'CharacterNormaliser', 'MixedNormaliser', 'WordNormaliser']

    Args:
        lang: ISO 639 code; a region is ignored unless listed ("zh-CN" is "zh", but "zh-en" is mixed text).
            A language that is not listed is taken to have spaces between words.
        overrides: normalisers by language code that take precedence over the built-in table.
    """
    code = lang.strip().lower().replace("_", "-")
    for key in (code, code.partition("-")[0]):
        for table in (overrides or {}, _BY_LANGUAGE):
            if key in table:
                return table[key]
    return _WORDS
