"""Text normalisation: a named, replaceable step per language, which also says what counts as one unit of error."""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

from lightning_audiorl.languages import (
    MIXED,
    WITHOUT_SPACES,
    check_language,
    known_language,
    language_of,
)
from lightning_audiorl.text.folding import (
    UNSPACED,
    bare_words,
    fold,
    is_plain,
    only_words,
    turkish_case,
    without_accents,
)

Unit = Literal["word", "char"]


def split_units(text: str, unit: Unit) -> list[str]:
    """The words of a normalised text, or its characters.

    Example:
        >>> split_units("one two", "word"), split_units("abc", "char")
        (['one', 'two'], ['a', 'b', 'c'])
    """
    return text.split() if unit == "word" else list(text)


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

    unit: Unit = "word"

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

    One case (ß is ss), NFKC; special tokens such as ``<unk>`` or ``<|en|>`` removed; punctuation becomes a space, so
    "3.5" is two words; apostrophes of any kind stay inside words ("don't"). Marks stay on their letters, but for the
    points of Arabic and Hebrew; selectors, joiners and lone marks are removed; digits of any script are those of ASCII.

    Example:
        >>> WordNormaliser().normalise("<|en|> Don’t panic: 3.5!")
        "don't panic 3 5"
    """

    def normalise(self, text: str) -> str:
        """One case, words alone."""
        return text if is_plain(text) else only_words(fold(text))


class EnglishNormaliser(WordNormaliser):
    """WordNormaliser, and accents dropped: "café" and "cafe" are the same English word.

    Example:
        >>> EnglishNormaliser().normalise("A naïve Café")
        'a naive cafe'
    """

    def normalise(self, text: str) -> str:
        """One case, words alone, no accents."""
        if is_plain(text):
            return text
        folded = fold(text)
        if folded.isascii():
            return only_words(folded)
        return only_words(without_accents(folded))


class TurkishNormaliser(WordNormaliser):
    """WordNormaliser for Turkish and Azerbaijani, where the small letter of I is ı and that of İ is i.

    Example:
        >>> TurkishNormaliser().normalise("IŞIK, İstanbul")
        'ışık istanbul'
    """

    def normalise(self, text: str) -> str:
        """One case, words alone."""
        return super().normalise(turkish_case(text))


class PersianNormaliser(WordNormaliser):
    """WordNormaliser for Persian, Urdu, Pashto and Sindhi, where ى is but another way to type ی.

    Example:
        >>> PersianNormaliser().normalise("فارسى") == PersianNormaliser().normalise("فارسی")
        True
    """

    def normalise(self, text: str) -> str:
        """One case, words alone."""
        return super().normalise(text).replace("ى", "ي")


class CharacterNormaliser(Normaliser):
    """Chinese, Japanese, Korean, Thai and the like: error counts are in characters (CER).

    As in WordNormaliser, and spaces and apostrophes removed. Traditional and simplified characters stay apart; see
    `SpokenNumberNormaliser`.

    Example:
        >>> CharacterNormaliser().normalise("你好，ＡＢＣ！")
        '你好abc'
    """

    unit: Unit = "char"

    def normalise(self, text: str) -> str:
        """One case, letters and digits alone."""
        joined = only_words(fold(text)).replace(" ", "").replace("'", "")
        # What stood apart may make one letter now.
        return unicodedata.normalize("NFKC", joined)


class MixedNormaliser(Normaliser):
    """Code-switched text: each letter of a script without spaces is a unit, with its marks; each other word is one.

    Errors over these units give what is called the mixed error rate.

    Example:
        >>> MixedNormaliser().normalise("我要 go home")
        '我 要 go home'
    """

    def normalise(self, text: str) -> str:
        """One case, letters and words with spaces between them."""
        words = only_words(fold(text))
        if words.isascii():
            return words

        pieces: list[str] = []
        for char in words:
            is_mark = unicodedata.category(char)[0] == "M"
            alone = not is_mark and UNSPACED.match(char) is not None
            # Marks go with the letter before them; what follows that is another unit.
            if alone or (pieces and not is_mark and UNSPACED.match(pieces[-1]) is not None):
                pieces += [" ", char]
            else:
                pieces.append(char)
        # An apostrophe may stand at the edge of a word only now.
        return bare_words("".join(pieces))


_WORDS = WordNormaliser()
_BY_LANGUAGE: dict[str, Normaliser] = {
    "en": EnglishNormaliser(),
    MIXED: MixedNormaliser(),
    **dict.fromkeys(WITHOUT_SPACES, CharacterNormaliser()),
    **dict.fromkeys(("tr", "az"), TurkishNormaliser()),
    **dict.fromkeys(("fa", "ur", "ps", "sd"), PersianNormaliser()),
}

_BUILT_IN = {WordNormaliser, *map(type, _BY_LANGUAGE.values())}


def normaliser_for(lang: str, overrides: Mapping[str, Normaliser] | None = None) -> Normaliser:
    """The normaliser of a language.

    Example:
        >>> [type(normaliser_for(lang)).__name__ for lang in ("en-GB", "Chinese", "zh-en", "deu")]
        ['EnglishNormaliser', 'CharacterNormaliser', 'MixedNormaliser', 'WordNormaliser']

    Args:
        lang: any code or name of `languages`; a region is passed over ("zh-CN" is "zh", but "zh-en" is mixed text).
            A language that is not listed is taken to have spaces between words.
        overrides: normalisers by language that take precedence over the built-in table; one for "zh" is that of "cmn"
            and "zh-CN", too, one for "zh-TW" of that region alone.
    """
    code = language_of(lang)
    if overrides:
        # The whole tag first: one region may have a normaliser of its own.
        for key, normaliser in overrides.items():
            if _tag(key) == _tag(lang):
                return normaliser
        for key, normaliser in overrides.items():
            if "-" not in _tag(key) and known_language(key) == code:
                return normaliser
    return _BY_LANGUAGE.get(code, _WORDS)


def _tag(lang: str) -> str:
    return lang.strip().lower().replace("_", "-")


def checked_normalisers(normalisers: Mapping[str, Normaliser] | None) -> dict[str, Normaliser]:
    """Normalisers by language, as a setting gives them.

    Raises:
        LanguageError: for a key that no language has; its normaliser would never be used.
    """
    for lang in normalisers or {}:
        check_language(lang)
    return dict(normalisers or {})


def is_built_in(normaliser: Normaliser) -> bool:
    """Whether it is one of the built-in table, which know no numbers.

    Example:
        >>> is_built_in(normaliser_for("de"))
        True
    """
    return type(normaliser) in _BUILT_IN
