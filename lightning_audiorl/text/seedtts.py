"""Texts as the scripts of Seed-TTS-eval and CV3-Eval compare them."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from lightning_audiorl.text.normalise import Normaliser, Unit

# Signs of ASCII but the apostrophe, and those of Chinese texts. Typographic apostrophes are among these, and are lost.
_SIGNS = re.compile(
    "["
    r"!\"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~"
    "\u00b7\u2013\u2014\u2018\u2019\u201b-\u201f\u2026\u2027\u3000-\u3003\u3008-\u3011\u3014-\u301f\u3030\u303e\u303f"
    "\ufe4f\ufe51\ufe54\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff64"
    "]"
)


class SeedTtsNormaliser(Normaliser):
    """What Seed-TTS-eval's and CV3-Eval's scripts do to text and transcript, for metrics beside those of their tables.

    Signs are deleted, and nothing stands in their place: "well-known" is one word, "wellknown". Words are compared in
    lower case, with the apostrophe of ASCII in them; characters one by one, in the case that they have. Numbers stay
    as they are written. Of other kinds of comparison `WordNormaliser` and `CharacterNormaliser` are the fairer ones.

    Args:
        unit: "char" for Chinese, and in CV3-Eval Japanese and Korean; "word" for others.
        simplified: turn traditional characters into simplified ones, as is done to transcripts of Chinese there; by
            zhconv, which comes with the extra ``zhconv``.

    Raises:
        ImportError: where zhconv is wanted and missing; names the extra.

    Example:
        >>> SeedTtsNormaliser().normalise("It's a well-known sign: 5 %!")
        "it's a wellknown sign 5"
        >>> SeedTtsNormaliser("char").units("你好，OK。")
        ['你', '好', 'O', 'K']
    """

    def __init__(self, unit: Unit = "word", simplified: bool = False) -> None:
        if unit not in ("word", "char"):
            raise ValueError(f"SeedTtsNormaliser.unit: expected word or char, got {unit!r}")
        self.unit = unit
        self.simplified = simplified
        if simplified:
            _zhconv()

    def normalise(self, text: str) -> str:
        """Without signs, and of one case where words are compared."""
        if self.simplified:
            text = str(_zhconv().convert(text, "zh-cn"))
        bare = _SIGNS.sub("", text)
        if self.unit == "char":
            return "".join(bare.split())
        return " ".join(bare.lower().split())


def _zhconv() -> Any:
    try:
        return import_module("zhconv")
    except ImportError as error:
        raise ImportError(
            "SeedTtsNormaliser: simplified characters are made by zhconv, which is not installed: "
            "pip install 'lightning-audiorl[zhconv]'; or leave `simplified` out where judge and texts write simplified "
            "ones already"
        ) from error
