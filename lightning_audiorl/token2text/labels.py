"""Labels of rows for the further heads of a Token2Text (multi-task reward)."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_audiorl.types import Utterance


def label_of(row: Utterance, head: str) -> str:
    """A row's label: its speaker for the head "speaker", else the manifest field of the head's name; "" without one.

    Example:
        >>> row = Utterance("row", (), "one", 1.0, speaker="george", extra={"emotion": "calm"})
        >>> label_of(row, "speaker"), label_of(row, "emotion"), label_of(row, "accent")
        ('george', 'calm', '')
    """
    return row.speaker if head == "speaker" else str(row.extra.get(head, ""))


def class_ids(
    rows: Sequence[Utterance],
    head: str,
    classes: Sequence[str],
    missing_ok: bool = False,
) -> list[int]:
    """The rows' classes of one head; -1 for a row without a label, where that is allowed.

    Raises:
        ValueError: for a label that the head does not have, or none where one is wanted; names the row.

    Example:
        >>> rows = [Utterance("row", (), "one", 1.0, speaker="lucas"), Utterance("other", (), "two", 1.0)]
        >>> class_ids(rows, "speaker", ["george", "lucas"], missing_ok=True)
        [1, -1]
    """
    place = {name: i for i, name in enumerate(classes)}
    ids = []
    for row in rows:
        label = label_of(row, head)
        if label not in place and (label or not missing_ok):
            where = "its speaker" if head == "speaker" else f"its field {head!r}"
            raise ValueError(
                f"row {row.id!r}: {where} is {label!r}; the head knows {', '.join(classes)}. Label the row, or train "
                "the head on that class"
            )
        ids.append(place.get(label, -1))
    return ids
