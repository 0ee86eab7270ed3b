"""What a line's text and language must be, whatever kind of file they stand in."""

from __future__ import annotations

from lightning_audiorl.languages import LanguageError, check_language
from lightning_audiorl.text.compare import without_sounds
from lightning_audiorl.text.folding import has_words

#: The language of a row where neither it nor its manifest names one.
DEFAULT_LANG = "en"


def wordless(text: str, allow_empty: bool = False) -> str:
    """What is wrong with a text that says nothing; "" where nothing is.

    A text of punctuation, special tokens or emoji alone would count as non-speech, though something was spoken.

    Example:
        >>> wordless("good morning"), wordless("", allow_empty=True)
        ('', '')
        >>> wordless("...")
        "'...' holds no word; write what is spoken, or an empty text, read with allow_empty_text, for non-speech"

    Args:
        text: of a line.
        allow_empty: whether it may be empty (non-speech).
    """
    if not text.strip():
        if allow_empty:
            return ""
        return "is empty; write what is spoken, or read with allow_empty_text for non-speech"
    if has_words(without_sounds(text)):
        return ""
    return (
        f"{text[:60]!r} holds no word; write what is spoken, or an empty text, read with allow_empty_text, for "
        "non-speech"
    )


def no_language(lang: str) -> str:
    """What is wrong with a language that is neither a code nor a name; "" where nothing is.

    Example:
        >>> no_language("de-AT"), no_language("englsh")[:34]
        ('', "'englsh' is no language: expected ")
    """
    try:
        check_language(lang)
    except LanguageError as error:
        return str(error)
    return ""
