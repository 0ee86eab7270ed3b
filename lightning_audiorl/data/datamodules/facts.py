"""What a data module's sets are, as plain data: for the card of the model that they trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_audiorl.data.manifest.files import IndexedManifest, ManifestRows
from lightning_audiorl.data.manifest.source import RowSource
from lightning_audiorl.data.mix.shares import Share
from lightning_audiorl.data.mix.spec import RLSubset

#: Rows that are looked at one by one for their length; of a larger set its number of rows is said alone.
_MAX_COUNTED = 200_000


def name_of(source: RowSource | str) -> str:
    """What a set is called where others read it: its manifest without the folders of this machine, or its class.

    Example:
        >>> name_of("/clips/train.jsonl"), name_of("clips/train.jsonl")
        ('train.jsonl', 'clips/train.jsonl')
    """
    path = source if isinstance(source, str) else getattr(source, "path", None)
    if not isinstance(path, str):
        return type(source).__name__
    return Path(path).name if Path(path).expanduser().is_absolute() else path


def name_of_subset(subset: RLSubset) -> str:
    """The set that a subset was chosen from, and the rule, where there is one."""
    name = name_of(subset.source)
    if subset.builder is None:
        return name
    return f"{name}, chosen by {type(subset.builder).__name__}"


def set_facts(
    label: str, source: str, rows: RowSource, given: RowSource | str, share: Share | None = None
) -> dict[str, Any]:
    """One set.

    Args:
        label: of the set in its data module.
        source: of `name_of`.
        rows: that are used.
        given: what the settings name; of a manifest the hours are counted.
        share: of the training mix; None of an evaluation set.

    Example:
        >>> from lightning_audiorl.data import NonSpeech
        >>> noise = NonSpeech(5)
        >>> set_facts("val/noise", name_of(noise), noise, noise)
        {'set': 'val/noise', 'source': 'NonSpeech', 'share': None, 'rows': 5, 'hours': None}
    """
    hours = None
    # Rows that are made are made again for a look at them.
    is_cheap = isinstance(given, str | ManifestRows | IndexedManifest)
    if is_cheap and len(rows) <= _MAX_COUNTED:
        hours = sum(row.duration_s for row in rows) / 3600
    return {"set": label, "source": source, "share": share, "rows": len(rows), "hours": hours}
