"""Recordings of a row's text beside its own audio: the field ``target`` of rows for speech synthesis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lightning_audiorl.data.manifest.schema import segment_to_json
from lightning_audiorl.types import Segment, Utterance

# Fields of ``extra``: the recording of the row's text, and what the speaker prompt says.
TARGET = "target"
PROMPT_TEXT = "prompt_text"


def length_s(segments: Sequence[Segment]) -> float:
    """Seconds of segments whose durations are known, silences included."""
    return round(sum(segment.gap_s + (segment.duration_s or 0.0) for segment in segments), 4)


def target_field(segments: Iterable[Segment]) -> list[dict[str, Any]]:
    """What ``extra["target"]`` holds for a recording made of ``segments``; `target_segments` reads it back."""
    return [segment_to_json(segment) for segment in segments]


def target_segments(row: Utterance) -> tuple[Segment, ...]:
    """The recording of the row's text; () where it has none.

    Raises:
        ValueError: ``target`` is something else than a list of segments; names the row.
    """
    if row.extra.get(TARGET) is None:
        return ()
    if not has_target(row):
        raise ValueError(
            f"row {row.id!r}, field `{TARGET}`: expected a list of segments such as "
            f'[{{"audio_filepath": "a.wav", "duration": 1.5}}], got {row.extra[TARGET]!r}'
        )
    return tuple(
        Segment(part["audio_filepath"], part.get("duration"), part.get("offset", 0.0), part.get("gap", 0.0))
        for part in row.extra[TARGET]
    )


def has_target(row: Utterance) -> bool:
    """Whether ``extra["target"]`` lists segments; a field of that name may hold anything else in other manifests."""
    parts = row.extra.get(TARGET)
    return (
        isinstance(parts, list)
        and bool(parts)
        and all(isinstance(part, dict) and isinstance(part.get("audio_filepath"), str) for part in parts)
    )


def all_segments(row: Utterance) -> tuple[Segment, ...]:
    """The row's audio and the recording of its text: all that training on the row may hear."""
    return (*row.segments, *target_segments(row)) if has_target(row) else row.segments
