"""What decides how a row's audio sounds: what several rules measure of a clip is measured once."""

from __future__ import annotations

from dataclasses import dataclass, field

from lightning_audiorl.types import Segment, Utterance


@dataclass(frozen=True)
class ClipKey:
    """What decides how a row's audio sounds; effects draw by the row's id. Rows that share it are measured once.

    Args:
        segments: of the row.
        effects: of the row.
        effects_key: the row's id where it has effects, else "".
        row: to be read.
    """

    segments: tuple[Segment, ...]
    effects: tuple[str, ...]
    effects_key: str
    row: Utterance = field(compare=False)


def clip_key(row: Utterance) -> ClipKey:
    """The key of a row's audio.

    Example:
        >>> rows = [Utterance(name, (Segment("a.wav", 1.0),), text, 1.0) for name, text in (("a", "one"), ("b", ""))]
        >>> clip_key(rows[0]) == clip_key(rows[1])
        True
    """
    return ClipKey(
        segments=row.segments,
        effects=row.effects,
        effects_key=row.id if row.effects else "",
        row=row,
    )
