"""Web pages by jinja2: whatever stands in a text, a name or a setting is shown as it is, and never read as HTML."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lightning_audiorl.reports.verdict import JUDGEMENT_WORDS

# Halves of characters, which no file can hold, and NUL, which no page may.
_UNWRITABLE = re.compile("[\ud800-\udfff\x00]")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("lightning_audiorl.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> str:
    """A page of one of the templates of this package.

    Args:
        template: its file, such as ``report.html``.
        values: what it shows; escaped.

    Raises:
        UndefinedError: for a value that the template wants and was not given.

    Example:
        >>> page = render("base.html", title="<script>")
        >>> "<title>&lt;script&gt;</title>" in page
        True
    """
    page: str = _environment().get_template(template).render(words=JUDGEMENT_WORDS, **values)
    return _UNWRITABLE.sub("\ufffd", page)
