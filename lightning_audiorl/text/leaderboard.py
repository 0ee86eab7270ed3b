"""Whisper's and the Open ASR Leaderboard's normalisers, which read numbers, money, times and titles."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lightning_audiorl.text.folding import fold
from lightning_audiorl.text.normalise import EnglishNormaliser, Normaliser

_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_PLAIN = EnglishNormaliser()

# The O of "O'Neil" and "o'clock" would be read as a zero.
_O_CLOCK = re.compile(r"\bo(?:'\s?|\s)clock\b")
_O_NAME = re.compile(r"\bo'(?=[a-z]{2})")
_OKAY = re.compile(r"\b(?:ok|o\.k\.)(?!\w)")
# "9:00 a.m." is said without a zero, "9:30" with its digits one after the other, as the normaliser joins number words.
_FULL_HOUR = re.compile(r"(?<![\d:.])0?(\d{1,2}):00(?![\d:])(\s?[ap]\.?m\b)?")
_TIME = re.compile(r"(?<![\d:.])(\d{1,2}):(\d\d)(?![\d:])")
_MINUS = re.compile(r"(?<![\w.])[-\u2212](?=\d)")
# Digits that are written one by one: 7 2 3; 5, 5, 1. And numbers that begin with zeros: 007.
_ONE_BY_ONE = re.compile(r"(?<![\w.,:/$£€¢-])\d(?:(?:,\s?|\s|-)\d(?![\w%]|[.,:/]\d))+")
_ZEROS_FIRST = re.compile(r"(?<![\w.,:$£€¢])0\d+(?![\w%]|[.,:]\d)")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)-(?=\d)")


class LeaderboardNormaliser(Normaliser):
    """English as the Open ASR Leaderboard and Whisper's evaluation compare it (arXiv:2212.04356, appendix C).

    "Twenty three dollars" is "$23", "Mr." is "mister", "don't" is "do not", hesitations and words in brackets are left
    out: transformers' ``EnglishTextNormalizer``. What it reads wrong is put right: an o before an apostrophe is no zero
    ("two o'clock", "O'Neil"), digits written one by one, times, zeros in front and signs are read as they are said
    ("7 2 3", "9:30", "007", "-5"), "ok" is "okay", a text of hesitations alone ("hmm") stays what it is, and
    normalising twice is normalising once.

    Args:
        spelling: British to American spelling: a JSON file of words, such as the ``normalizer.json`` of a Whisper
            checkpoint, or the folder that holds it. None leaves spelling as it is ("colour" and "color" differ), since
            transformers ships no such file.

    Raises:
        FileNotFoundError: no such file.

    Example:
        >>> normaliser = LeaderboardNormaliser()
        >>> normaliser.normalise("Mr. O'Neil paid twenty-three dollars at two o'clock.")
        'mister oneil paid $23 at 2 oclock'
    """

    def __init__(self, spelling: str | None = None) -> None:
        # Here, for transformers takes seconds to import, and most runs take the plain normalisers.
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        self.spelling = spelling
        self._normalise = EnglishTextNormalizer(_spelling_of(spelling))

    def normalise(self, text: str) -> str:
        """Lower case, numbers in digits, contractions in full."""
        plain = _PLAIN.normalise(text)
        # A sign alone, such as %, is no word.
        if not plain:
            return ""

        try:
            found = self._settled(fold(text))
        except ValueError:
            # A number of thousands of digits is more than Python reads.
            return plain
        # Of hesitations alone nothing is left, and of a lone £ nothing that is said.
        return found if _PLAIN.normalise(found) else plain

    def _settled(self, text: str) -> str:
        """Normalised until another time changes nothing, five times at most."""
        for _ in range(5):
            before = text
            text = self._normalise(_as_said(text)).strip()
            if text == before:
                break
        return text


def _spelling_of(spelling: str | None) -> dict[str, str]:
    """The words of a file of spellings; none where there is no file."""
    if spelling is None:
        return {}

    path = Path(spelling).expanduser()
    if path.is_dir():
        path = path / "normalizer.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"LeaderboardNormaliser.spelling: {path}: no such file; give the normalizer.json of a Whisper checkpoint, "
            "or leave it out"
        )
    words = json.loads(path.read_text(encoding="utf-8"))
    return {str(british): str(american) for british, american in words.items()}


def _as_said(text: str) -> str:
    """Folded text with what the normaliser would read otherwise than it is said.

    Example:
        >>> _as_said("o'neil, 7 2 3, at 9:30 or 10:00, -5")
        'oneil, seven two three, at 930 or 10 oclock, minus 5'
    """
    text = _O_CLOCK.sub("oclock", text)
    text = _O_NAME.sub("o", text)
    text = _OKAY.sub("okay", text)

    text = _FULL_HOUR.sub(lambda hour: hour[1] + (hour[2] or " oclock"), text)
    text = _TIME.sub(r"\1\2", text)
    text = _MINUS.sub("minus ", text)
    text = _ONE_BY_ONE.sub(_spelled, text)
    text = _ZEROS_FIRST.sub(_spelled, text)
    return _BETWEEN_DIGITS.sub("", text)


def _spelled(digits: re.Match[str]) -> str:
    return " ".join(_DIGITS[int(char)] for char in digits[0] if char.isdigit())


class BasicNormaliser(Normaliser):
    """Any language as Whisper's evaluation compares it: words in brackets and all signs left out, lower case.

    It is transformers' ``BasicTextNormalizer``, for metrics that are to be compared with others' alone: it takes the
    vowel signs of Hindi, Thai and the like for signs, and cuts words there.

    Args:
        remove_diacritics: take accents off letters.
        split_letters: count letters, as is done for languages without spaces.

    Example:
        >>> BasicNormaliser().normalise("Él (bajito) dijo: «café»")
        'él dijo café'
    """

    def __init__(self, remove_diacritics: bool = False, split_letters: bool = False) -> None:
        from transformers.models.whisper.english_normalizer import BasicTextNormalizer

        self._normalise = BasicTextNormalizer(remove_diacritics, split_letters)

    def normalise(self, text: str) -> str:
        """Lower case, words alone."""
        return str(self._normalise(text)).strip()
