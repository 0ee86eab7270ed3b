"""Numbers in digits read as they are said, by packages of the extra ``numbers``."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, get_args

from lightning_audiorl.languages import LanguageError, check_language, english_name, language_of
from lightning_audiorl.text.folding import fold
from lightning_audiorl.text.normalise import Normaliser, normaliser_for

#: Read by wetext, with dates, times and money; of others num2words reads the numbers alone.
_BY_WETEXT = ("zh", "ja")
# These write 1,000.5; others 1.000,5.
_DECIMAL_POINT = frozenset(["en", "ko", "th", "he", "te", "kn", "am", "hi", "bn", "fa", "ar"])
_NUMBER = re.compile(r"\d+(?:[.,'\u00a0\u202f]\d+)*")
_DIGIT = re.compile(r"\d")
# Read without a package: rows of digits are the first thing that one trains on.
_ENGLISH_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Reading = Literal["number", "digits"]


class SpokenNumberNormaliser(Normaliser):
    """The plain normaliser of a language, with numbers that are written in digits read as they are said.

    Chinese and Japanese by ``wetext`` (WeTextProcessing), which reads dates, times and money, too; traditional
    characters of Chinese become simplified ones. Other languages by ``num2words``: numbers alone, as cardinals. Both
    come with the extra ``numbers``. For English see `LeaderboardNormaliser`.

    Args:
        lang: any code or name of the language.
        reading: "number" reads 13 as thirteen. "digits" reads one digit after the other, one three, for texts that are
            rows of digits: a recogniser writes "seven three" as 73, 7-3 or 7, 3, all of which are then what was said.
            That of English wants no package.

    Raises:
        ValueError: for another reading.
        LanguageError: for a language that num2words does not read.
        ImportError: where the package is missing; names the extra.

    Example::

        SpokenNumberNormaliser("de").normalise("Bei 10 Metern")    # "bei zehn metern"
        SpokenNumberNormaliser("zh").normalise("2025年")           # "二零二五年"

    Example:
        >>> SpokenNumberNormaliser("en", reading="digits").normalise("7-3, 05.")
        'seven three zero five'
    """

    def __init__(self, lang: str, reading: Reading = "number") -> None:
        check_language(lang)
        if reading not in get_args(Reading):
            raise ValueError(
                f"SpokenNumberNormaliser.reading: expected 'number' or 'digits', got {reading!r}"
            )
        self.reading = reading
        self.lang = language_of(lang)
        self._plain = normaliser_for(lang)
        self.unit = self._plain.unit
        self._wetext: Any = None
        if self._reads_alone:
            return

        package = "wetext" if self.lang in _BY_WETEXT else "num2words"
        if find_spec(package) is None:
            raise ImportError(
                f"SpokenNumberNormaliser: numbers of {english_name(self.lang)} are read by {package}, which is not "
                "installed: pip install 'lightning-audiorl[numbers]'"
            )
        if package == "num2words":
            self._words(1)

    def normalise(self, text: str) -> str:
        """Numbers as words, then the plain normaliser."""
        # Folded first: full width digits and those of other scripts are numbers, too.
        folded = fold(text)
        if self.reading == "digits":
            folded = _DIGIT.sub(lambda digit: f" {self._digit(digit[0])} ", folded)
        if self._reads_alone:
            return self._plain.normalise(folded)
        if self.lang in _BY_WETEXT:
            return self._plain.normalise(self._by_wetext(folded))
        return self._plain.normalise(_NUMBER.sub(self._number, folded))

    @property
    def _reads_alone(self) -> bool:
        """Whether no package is needed."""
        return self.lang == "en" and self.reading == "digits"

    def _digit(self, digit: str) -> str:
        if self.lang == "en":
            return _ENGLISH_DIGITS[int(digit)]
        # What reads Chinese and Japanese reads a digit that stands alone by its name, too.
        return digit if self.lang in _BY_WETEXT else self._words(int(digit))

    def _by_wetext(self, text: str) -> str:
        if self._wetext is None:
            how = {"traditional_to_simple": True} if self.lang == "zh" else {}
            wetext = import_module("wetext")
            self._wetext = wetext.Normalizer(lang=self.lang, operator="tn", **how)
        return str(self._wetext.normalize(text))

    def __getstate__(self) -> dict[str, Any]:
        # Its automata do not travel to another process, which makes its own.
        return self.__dict__ | {"_wetext": None}

    def _number(self, written: re.Match[str]) -> str:
        thousands = "," if self.lang in _DECIMAL_POINT else "."
        # A point or comma before three digits stands for thousands where the language writes it so.
        number = re.sub(rf"['\u00a0\u202f{thousands}](?=\d\d\d(?!\d))", "", written[0])
        whole, _, rest = number.replace(",", ".").partition(".")
        if "." in rest:
            # A date or version: each part by itself.
            parts = [whole, *rest.split(".")]
            return " ".join(["", *[self._words(int(part)) for part in parts], ""])
        value = float(number.replace(",", ".")) if rest else int(whole)
        return f" {self._words(value)} "

    def _words(self, value: float) -> str:
        try:
            return str(import_module("num2words").num2words(value, lang=self.lang))
        except NotImplementedError as error:
            raise LanguageError(
                f"SpokenNumberNormaliser: num2words reads no numbers of {english_name(self.lang)} ({self.lang})"
            ) from error
        except OverflowError:
            return str(value)
