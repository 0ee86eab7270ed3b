"""The README.md of a model's folder: what it says of the model, and whether this library has written it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from transformers.utils.hub import cached_file

CARD = "README.md"

#: In every card that an export writes; without it a README is somebody's own, and stays.
MARK = "<!-- Written by an export of lightning-audiorl; the next one replaces it as long as this line is there. -->"


def is_written(folder: str | Path) -> bool:
    """Whether a folder has a card that an export wrote."""
    card = Path(folder) / CARD
    return card.is_file() and MARK in card.read_text(encoding="utf-8", errors="replace")


def write_card(folder: str | Path, text: str) -> bool:
    """Put a card into a folder; False where a README stands there that no export wrote.

    Args:
        folder: of the model.
        text: with `MARK` in it.
    """
    card = Path(folder) / CARD
    if card.exists() and not is_written(folder):
        return False

    # A card that is cut off would be somebody's own to the next export.
    unfinished = card.with_name(f".{CARD}.new")
    unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(unfinished, card)
    return True


def card_metadata(source: str, revision: str | None = None) -> dict[str, Any]:
    """The metadata of a folder's or hub id's README.md; empty where there is none here that can be read.

    Args:
        source: folder or hub id.
        revision: of a hub id.
    """
    # A card is no part of the model: one that is missing or broken stops nothing, and no network is asked for it.
    found = cached_file(
        source,
        CARD,
        revision=revision,
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if found is None:
        return {}
    return metadata_of(Path(found).read_text(encoding="utf-8", errors="replace"))


def metadata_of(text: str) -> dict[str, Any]:
    r"""The YAML between the two lines ``---`` that a model card begins with.

    Example:
        >>> metadata_of("---\nlicense: mit\n---\n# A model\n")
        {'license': 'mit'}
        >>> metadata_of("# A model\n")
        {}
    """
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    rest = [line.rstrip() for line in lines[1:]]
    if "---" not in rest:
        return {}

    try:
        found = yaml.safe_load("\n".join(rest[: rest.index("---")]))
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}
