"""Texts in pictures: no text of a manifest is read as mathematics, ends a run, or is drawn as boxes."""

from __future__ import annotations

import textwrap
import unicodedata
from functools import lru_cache

from matplotlib import font_manager, rcParams
from matplotlib.figure import Figure
from matplotlib.text import Text

from lightning_audiorl.callbacks.outputs import printable

#: Lines that a title may have.
_MAX_LINES = 2


def shortened(text: str, num_columns: int) -> str:
    """A title in at most two lines of ``num_columns``, with an ellipsis where it is cut.

    Example:
        >>> shortened("one two three four five six", num_columns=10)
        'one two\\nthree …'
    """
    # A character of Chinese, Japanese or Korean is as wide as two others.
    num_wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    columns = max(8, num_columns // 2 if 2 * num_wide > len(text) else num_columns)
    lines = textwrap.wrap(text, columns, max_lines=_MAX_LINES, placeholder=" …")
    return "\n".join(lines)


def fonts_for(text: str) -> list[str] | None:
    """Families of installed fonts that have all glyphs of a text between them; None where there are none.

    Args:
        text: to be drawn.

    Example:
        >>> fonts_for("one") == rcParams["font.family"]
        True
    """
    usual = list(rcParams["font.family"])
    missing = {ord(character) for character in text if not character.isspace()}
    missing -= _glyphs(font_manager.findfont(font_manager.FontProperties(family=usual)))
    if not missing:
        return usual

    for font in font_manager.fontManager.ttflist:
        is_plain = font.style == "normal" and font.weight in (400, "normal", "regular")
        # It has a box with a picture for every character there is, which is no glyph.
        is_last_resort = "last resort" in font.name.lower()
        if is_plain and not is_last_resort and missing <= _glyphs(font.fname):
            return [*usual, font.name]
    return None


@lru_cache(maxsize=256)
def _glyphs(path: str) -> frozenset[int]:
    """The characters of a font; none of one that cannot be drawn, such as pictures in colour."""
    try:
        font = font_manager.get_font(path)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()


def draw_title(text: Text, title: str, otherwise: str, num_columns: int) -> None:
    """Set a title as it stands, shortened, in a font that has its characters.

    Args:
        text: of the figure.
        title: any text.
        otherwise: what stands there where no installed font can draw the title, such as the id of its row.
        num_columns: characters that a line has room for.
    """
    for candidate in (title, otherwise):
        # Marks of direction and the like have no glyph.
        drawn = [one for one in printable(candidate) if unicodedata.category(one) != "Cf"]
        line = shortened("".join(drawn), num_columns)
        fonts = fonts_for(line)
        if fonts is not None:
            text.set_text(line)
            text.set_fontfamily(fonts)
            text.set_parse_math(False)
            return
    text.set_text("")


def as_plain_text(figure: Figure) -> None:
    """Have the titles, labels and legends of a figure drawn as they stand, dollar signs and all."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        fonts = fonts_for(text.get_text())
        if fonts is not None:
            text.set_fontfamily(fonts)


def label(name: str) -> str:
    """A name of the user's as a figure can draw it; a question mark for each character that no font has.

    Example:
        >>> label("dev $5")
        'dev $5'
    """
    line = printable(name)
    if fonts_for(line) is not None:
        return line
    return "".join(one if fonts_for(one) is not None else "?" for one in line)
