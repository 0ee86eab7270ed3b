"""Rules that say whether a hypothesis holds content that was not spoken. Each has a name and its own thresholds.

The length bounds follow arXiv:2604.18105; the other rules are this project's.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from lightning_audiorl.checks import check_count, check_number
from lightning_audiorl.languages import WITHOUT_SPACES, language_of


class HallucinationRule(ABC):
    """One rule over units (words, or characters of a language without spaces) of normalised text.

    Example:
        >>> class Shouting(HallucinationRule):
        ...     name = "shouting"
        ...
        ...     def fires(self, reference: list[str], hypothesis: list[str]) -> bool:
        ...         return any(unit.isupper() for unit in hypothesis)
        >>> fired_rules(["hello"], ["HELLO"], [Shouting()])
        ['shouting']
    """

    name: ClassVar[str]

    @abstractmethod
    def fires(self, reference: list[str], hypothesis: list[str]) -> bool:
        """Whether the rule finds a hallucination."""

    def fires_in(self, lang: str, reference: list[str], hypothesis: list[str]) -> bool:
        """`fires` for a row of a language, which some rules know the writing of.

        Args:
            lang: any code or name of it; "" where it is not known.
            reference: units of the normalised reference.
            hypothesis: units of the normalised hypothesis.
        """
        return self.fires(reference, hypothesis)


def longest_runs(units: list[str], n: int) -> dict[tuple[str, ...], int]:
    """For each n-gram of ``units``, how many times at most it stands back to back.

    Example:
        >>> longest_runs("a b a b c".split(), n=2)
        {('a', 'b'): 2, ('b', 'a'): 1, ('b', 'c'): 1}
    """
    num_grams = max(0, len(units) - n + 1)
    grams = [tuple(units[i : i + n]) for i in range(num_grams)]

    # From the end: a run that starts at i goes on with the one that starts n units later.
    runs = [1] * num_grams
    for i in reversed(range(num_grams - n)):
        if grams[i] == grams[i + n]:
            runs[i] = runs[i + n] + 1

    longest: dict[tuple[str, ...], int] = {}
    for gram, run in zip(grams, runs, strict=True):
        longest[gram] = max(run, longest.get(gram, 0))
    return longest


def _is_repetition(gram: tuple[str, ...]) -> bool:
    """Whether the n-gram is itself a shorter n-gram repeated."""
    n = len(gram)
    periods = [period for period in range(1, n // 2 + 1) if n % period == 0]
    return any(gram == gram[:period] * (n // period) for period in periods)


@dataclass(frozen=True)
class Loop(HallucinationRule):
    """An n-gram stands back to back more often than anywhere in the reference.

    Digit strings and hard sets repeat by nature, so each n-gram is compared with its own longest run in the reference
    (at least 1).

    Example:
        >>> rule = Loop()
        >>> rule.fires("one two".split(), "one two two two two".split())
        True
        >>> rule.fires("two two two two".split(), "two two two two".split())
        False

    Args:
        max_n: longest n-gram looked at, in units.
        slack: units that a run may add to the reference's before it counts: with 2, one word said three times instead
            of once passes, a phrase of three words said twice instead of once does not.
    """

    max_n: int = 8
    slack: int = 2
    name: ClassVar[str] = "loop"

    def __post_init__(self) -> None:
        if self.max_n < 1 or self.slack < 0:
            raise ValueError(
                f"Loop: want max_n >= 1 and slack >= 0; got max_n={self.max_n}, slack={self.slack}"
            )

    def fires(self, reference: list[str], hypothesis: list[str]) -> bool:
        """Whether any n-gram is repeated beyond the slack."""
        # What is longer than half of the text cannot stand in it twice.
        longest_n = min(self.max_n, len(hypothesis) // 2)
        return any(self._loops(reference, hypothesis, n) for n in range(1, longest_n + 1))

    def _loops(self, reference: list[str], hypothesis: list[str], n: int) -> bool:
        repeated = {gram: run for gram, run in longest_runs(hypothesis, n).items() if run > 1}
        if not repeated:
            return False

        spoken = longest_runs(reference, n)
        for gram, run in repeated.items():
            added = (run - max(spoken.get(gram, 0), 1)) * n
            # "two two" twice is "two" four times: the shorter n-gram is judged, with its own run in the reference.
            if added > self.slack and not _is_repetition(gram):
                return True
        return False


@lru_cache(maxsize=65536)
def script_of(char: str) -> str:
    """Unicode script of a letter by its name ("LATIN", "CJK", ...); "" for anything but a letter.

    Example:
        >>> script_of("a"), script_of("我"), script_of("7")
        ('LATIN', 'CJK', '')
    """
    # The names of modifier letters (Lm), such as 々 and ー, do not begin with a script.
    if unicodedata.category(char) not in ("Lu", "Ll", "Lt", "Lo"):
        return ""
    return unicodedata.name(char, "").partition(" ")[0]


def said_lengths(lang: str, reference: list[str], hypothesis: list[str]) -> tuple[int, int]:
    """Units of both, as long as they are said: in Japanese a character that the other side spells in kana is three.

    Example:
        >>> said_lengths("ja", list("三十"), list("さんじゅう")), said_lengths("zh", list("三十"), list("三"))
        ((6, 5), (2, 1))
    """
    length = len(reference)
    other_length = len(hypothesis)
    if language_of(lang) == "ja":
        characters = sum(script_of(char) == "CJK" for char in "".join(reference))
        others = sum(script_of(char) == "CJK" for char in "".join(hypothesis))
        # Readings of a character have up to three kana.
        length += 2 * max(characters - others, 0)
        other_length += 2 * max(others - characters, 0)
    return length, other_length


def is_respelled(lang: str, reference: list[str], hypothesis: list[str]) -> bool:
    """Whether one side may be the other in kana: Japanese characters alone beside kana alone, of a length that fits.

    Example:
        >>> is_respelled("ja", list("三十"), list("さんじゅう")), is_respelled("zh", list("三十"), list("さんじゅう"))
        (True, False)
    """
    if language_of(lang) != "ja":
        return False
    sides = [
        {script_of(char) for char in "".join(units)} - {""} for units in (reference, hypothesis)
    ]
    kana = [bool(side) and side <= {"HIRAGANA", "KATAKANA"} for side in sides]
    characters = [side == {"CJK"} for side in sides]
    if not ((characters[0] and kana[1]) or (kana[0] and characters[1])):
        return False
    return not RunawayLength().fires_in(lang, reference, hypothesis)


@dataclass(frozen=True)
class RunawayLength(HallucinationRule):
    """The hypothesis is more than ``max_ratio`` times as long as a non-empty reference, by ``min_extra`` units or more.

    The absolute bound keeps one wrong word beside a one-word reference from counting.

    Example:
        >>> RunawayLength().fires(["one"], "one and then some more".split())
        True

    Args:
        max_ratio: of the hypothesis' length to the reference's.
        min_extra: units that the hypothesis must have more than the reference.
    """

    max_ratio: float = 2.0
    min_extra: int = 3
    name: ClassVar[str] = "runaway_length"

    def __post_init__(self) -> None:
        check_number("RunawayLength.max_ratio", self.max_ratio, above=0)
        check_count("RunawayLength.min_extra", self.min_extra)

    def fires(self, reference: list[str], hypothesis: list[str]) -> bool:
        """Whether the hypothesis is too long; never for an empty reference, which is another rule's."""
        if not reference:
            return False
        return self._too_long(len(reference), len(hypothesis))

    def fires_in(self, lang: str, reference: list[str], hypothesis: list[str]) -> bool:
        """As `fires`; in Japanese, characters of one side that the other spells in kana count as long as their kana."""
        lengths = said_lengths(lang, reference, hypothesis)
        return bool(reference) and self._too_long(*lengths)

    def _too_long(self, length: int, hypothesis_length: int) -> bool:
        is_long = hypothesis_length > self.max_ratio * length
        return is_long and hypothesis_length - length >= self.min_extra


@dataclass(frozen=True)
class Truncation(HallucinationRule):
    """The hypothesis is less than ``min_ratio`` times as long as the reference, by ``min_missing`` units or more.

    Example:
        >>> Truncation().fires("one two three four five".split(), "one two".split())
        True

    Args:
        min_ratio: of the hypothesis' length to the reference's.
        min_missing: units that the hypothesis must have fewer than the reference.
    """

    min_ratio: float = 0.5
    min_missing: int = 2
    name: ClassVar[str] = "truncation"

    def __post_init__(self) -> None:
        check_number("Truncation.min_ratio", self.min_ratio, at_least=0, at_most=1)
        check_count("Truncation.min_missing", self.min_missing)

    def fires(self, reference: list[str], hypothesis: list[str]) -> bool:
        """Whether the hypothesis is too short."""
        return self._too_short(len(reference), len(hypothesis))

    def fires_in(self, lang: str, reference: list[str], hypothesis: list[str]) -> bool:
        """As `fires`; in Japanese, characters of one side that the other spells in kana count as long as their kana."""
        return self._too_short(*said_lengths(lang, reference, hypothesis))

    def _too_short(self, length: int, hypothesis_length: int) -> bool:
        is_short = hypothesis_length < self.min_ratio * length
        return is_short and length - hypothesis_length >= self.min_missing


@dataclass(frozen=True)
class TextForSilence(HallucinationRule):
    """Any text where nothing was spoken (empty reference).

    Example:
        >>> TextForSilence().fires([], ["thank", "you"])
        True
    """

    name: ClassVar[str] = "text_for_silence"

    def fires(self, reference: list[str], hypothesis: list[str]) -> bool:
        """Whether there is text beside an empty reference."""
        return not reference and bool(hypothesis)


def scripts_of(units: list[str]) -> set[str]:
    """Scripts of all letters in ``units``; text with kana may hold Chinese characters and either kana.

    Example:
        >>> sorted(scripts_of(["go", "дом", "3"]))
        ['CYRILLIC', 'LATIN']
    """
    scripts = {script_of(char) for char in "".join(units)} - {""}
    if scripts & {"HIRAGANA", "KATAKANA"}:
        scripts |= {"HIRAGANA", "KATAKANA", "CJK"}
    return scripts


# Scripts that a language is written in side by side.
_SCRIPTS_OF: dict[str, frozenset[str]] = {
    "ja": frozenset(("HIRAGANA", "KATAKANA", "CJK")),
    "ko": frozenset(("HANGUL", "CJK")),
    "pa": frozenset(("GURMUKHI", "ARABIC")),
    "mn": frozenset(("CYRILLIC", "MONGOLIAN")),
    **dict.fromkeys(("sr", "bs", "uz", "kk", "tk", "tt"), frozenset(("CYRILLIC", "LATIN"))),
    **dict.fromkeys(("az", "ku"), frozenset(("CYRILLIC", "LATIN", "ARABIC"))),
    "ms": frozenset(("LATIN", "ARABIC")),
}


@dataclass(frozen=True)
class OtherScript(HallucinationRule):
    """``min_letters`` or more letters of a script that the reference does not use, as when text was translated.

    A reference without letters (empty, or digits alone) says nothing about the script: the rule does not fire. Scripts
    that a language is written in side by side are one: kana and kanji, Hangul and hanja, Cyrillic and Latin in Serbian.
    In languages without spaces Latin letters are a name, unless there is nothing else.

    Example:
        >>> OtherScript().fires(["guten", "tag"], ["добрый", "день"])
        True

    Args:
        min_letters: of another script, in the hypothesis.
    """

    min_letters: int = 1
    name: ClassVar[str] = "other_script"

    def fires(self, reference: list[str], hypothesis: list[str]) -> bool:
        """Whether the hypothesis has letters of a script that the reference lacks."""
        return self.fires_in("", reference, hypothesis)

    def fires_in(self, lang: str, reference: list[str], hypothesis: list[str]) -> bool:
        """Whether it has letters of a script that neither the reference nor its language has."""
        known = scripts_of(reference)
        if not known:
            return False

        code = language_of(lang)
        together = _SCRIPTS_OF.get(code, frozenset())
        if known & together:
            known |= together

        scripts = [script_of(char) for char in "".join(hypothesis)]
        if code in WITHOUT_SPACES and known.intersection(scripts):
            known.add("LATIN")
        num_foreign = sum(script != "" and script not in known for script in scripts)
        return num_foreign >= self.min_letters


DEFAULT_RULES: tuple[HallucinationRule, ...] = (
    Loop(),
    RunawayLength(),
    Truncation(),
    TextForSilence(),
    OtherScript(),
)


def fired_rules(
    reference: list[str],
    hypothesis: list[str],
    rules: Sequence[HallucinationRule] = DEFAULT_RULES,
    lang: str = "",
) -> list[str]:
    """Names of the rules that find a hallucination.

    Example:
        >>> fired_rules("one two".split(), "one two two two two two".split())
        ['loop', 'runaway_length']

    Args:
        reference: units of the normalised reference (``Normaliser.units``).
        hypothesis: units of the normalised hypothesis.
        rules: which rules to ask, in this order.
        lang: of the row, any code or name; "" where it is not known.
    """
    return [rule.name for rule in rules if rule.fires_in(lang, reference, hypothesis)]
