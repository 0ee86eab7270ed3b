"""How a reference and a hypothesis are brought side by side, and a word where that may surprise."""

from __future__ import annotations

import logging
import re

from lightning_audiorl.languages import english_name, language_of
from lightning_audiorl.text.folding import UNSPACED
from lightning_audiorl.text.hallucination import script_of
from lightning_audiorl.text.normalise import Normaliser, is_built_in, split_units

_log = logging.getLogger(__name__)

# Sounds that CosyVoice's texts ask for: heard, but no words.
_SOUNDS = re.compile(
    r"\[(?:laughter|breath|quick_breath|cough|sigh|noise|vocalized-noise|lipsmack|clucking|hissing|accent|mn)\]"
)
# What a recogniser writes in place of number words.
_NUMBERS = re.compile(r"[\d%$€£¥₹]")
#: The language that a script without spaces is most likely of.
_LANGUAGE_OF_SCRIPT = {
    "CJK": "zh",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "THAI": "th",
    "LAO": "lo",
    "MYANMAR": "my",
    "KHMER": "km",
}
# What a warning proposes.
_NUMBERS_OF = "{class_path: lightning_audiorl.text.SpokenNumberNormaliser, init_args: {lang: %s}}"
_LEADERBOARD = "{class_path: lightning_audiorl.text.LeaderboardNormaliser}"


def compared(reference: str, hypothesis: str, normaliser: Normaliser) -> tuple[str, str]:
    """Both texts normalised. Beside an empty reference a hypothesis without words stays as it is, without its spaces.

    Where nothing is said, "." and "..." are text that a model made up, though they hold no word.

    Example:
        >>> from lightning_audiorl.text import normaliser_for
        >>> compared("One, two", "one: two", normaliser_for("en"))
        ('one two', 'one two')
        >>> compared("", " ... !", normaliser_for("en")), compared("one", "...", normaliser_for("en"))
        (('', '... !'), ('one', ''))

    Args:
        reference: text, not normalised.
        hypothesis: text, not normalised.
        normaliser: of the row's language.
    """
    spoken = normaliser.normalise(reference)
    written = normaliser.normalise(hypothesis)
    if not spoken and not written:
        between = " " if normaliser.unit == "word" else ""
        written = between.join(hypothesis.split())
    return spoken, written


def compared_units(
    reference: str, hypothesis: str, normaliser: Normaliser
) -> tuple[list[str], list[str]]:
    """`compared`, as units.

    Example:
        >>> from lightning_audiorl.text import normaliser_for
        >>> compared_units("one", "One two", normaliser_for("en"))
        (['one'], ['one', 'two'])
    """
    spoken, written = compared(reference, hypothesis, normaliser)
    return split_units(spoken, normaliser.unit), split_units(written, normaliser.unit)


def without_sounds(text: str) -> str:
    """A text to be spoken without the tags of sounds that are no words, such as ``[laughter]`` and ``[breath]``.

    Example:
        >>> without_sounds("wait [breath] for it")
        'wait   for it'
    """
    return _SOUNDS.sub(" ", text)


def heard_words(reference: str, transcript: str) -> str:
    """A transcript as it is compared with a text to be spoken: without the tags of sounds, where that asks for any.

    Example:
        >>> heard_words("[laughter] so funny", "[laughter] so funny"), heard_words("so funny", "[laughter] so")
        ('  so funny', '[laughter] so')
    """
    asks_for_sounds = _SOUNDS.search(reference) is not None
    return without_sounds(transcript) if asks_for_sounds else transcript


def unspaced_language(text: str) -> str:
    """The language whose script most of a text is in, where that script has no spaces between words; else "".

    Example:
        >>> unspaced_language("今天天气很好"), unspaced_language("call 李明"), unspaced_language("さんじゅう")
        ('zh', '', 'ja')
    """
    if text.isascii():
        return ""

    letters = [char for char in text if char.isalpha()]
    scripts = [script_of(char) for char in letters if UNSPACED.match(char)]
    languages = [_LANGUAGE_OF_SCRIPT[script] for script in scripts if script in _LANGUAGE_OF_SCRIPT]
    # One such character by itself is a word like any other.
    if len(languages) < 2 or 2 * len(languages) <= len(letters):
        return ""
    return "ja" if "ja" in languages else languages[0]


class TextWatch:
    """Says once, with the row's id, where texts are counted otherwise than their writer may think.

    Two things are looked for: a text in a script without spaces that is counted in words, so that one wrong character
    costs as much as all; and numbers in digits beside a reference that has them in words, which the plain normalisers
    take for other words.

    Args:
        name: of the reward or metric that counts.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._said: set[str] = set()

    def look(
        self,
        row_id: str,
        lang: str,
        reference: str,
        hypothesis: str,
        normaliser: Normaliser,
        unit: str = "language",
    ) -> None:
        """Look at one pair of texts.

        Args:
            row_id: of the row.
            lang: its language, as the row has it.
            reference: its text, not normalised.
            hypothesis: what is compared with it, not normalised.
            normaliser: that both go through.
            unit: "char" where characters are counted, whatever the language.
        """
        if unit == "language" and normaliser.unit == "word" and not reference.isascii():
            self._look_for_spaces(row_id, lang, reference, normaliser)
        # What a normaliser of one's own does with digits is not known.
        if is_built_in(normaliser):
            self._look_for_digits(row_id, lang, reference, hypothesis)

    def _look_for_spaces(self, row_id: str, lang: str, text: str, normaliser: Normaliser) -> None:
        likely = "" if "spaces" in self._said else unspaced_language(text)
        # A normaliser of mixed text makes a unit of each such character.
        if not likely or not any(unspaced_language(unit) for unit in normaliser.units(text)):
            return

        self._said.add("spaces")
        _log.warning(
            "%s: the text of row %r has no spaces, but its lang %r is counted in words, so that one wrong character "
            "costs a whole word; set `lang` of the row, or of its manifest, to what it is, such as %r (%s). Said once; "
            "other rows may be alike",
            self.name,
            row_id,
            lang,
            likely,
            english_name(likely),
        )

    def _look_for_digits(self, row_id: str, lang: str, reference: str, hypothesis: str) -> None:
        if "digits" in self._said or not _NUMBERS.search(hypothesis) or _NUMBERS.search(reference):
            return
        # Beside an empty reference any text is wrong.
        if not reference.strip():
            return

        self._said.add("digits")
        code = language_of(lang) or lang
        normaliser = _LEADERBOARD if code == "en" else _NUMBERS_OF % code
        _log.warning(
            "%s: row %r has no number in digits, but %r was recognised; digits and number words count as other words. "
            "Set `normalisers: {%s: %s}` for reward and evaluation to take them for the same. Said once; other rows "
            "may be alike",
            self.name,
            row_id,
            hypothesis[:80],
            code,
            normaliser,
        )
