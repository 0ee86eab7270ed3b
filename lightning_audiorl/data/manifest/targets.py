"""Recordings of a row's text beside its own audio: the field ``target`` of rows for speech synthesis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lightning_audiorl.data.manifest.schema import MOST_S, segment_to_json
from lightning_audiorl.types import Segment, Utterance

# Fields of ``extra``: the recording of the row's text, and what the speaker prompt says.
TARGET = "target"
PROMPT_TEXT = "prompt_text"


def length_s(segments: Sequence[Segment]) -> float:
    """Seconds of segments whose durations are known, silences included.

    Example:
        >>> length_s([Segment("a.wav", 1.5), Segment("b.wav", 0.5, gap_s=0.2)])
        2.2
    """
    lengths_s = [segment.gap_s + (segment.duration_s or 0.0) for segment in segments]
    return round(sum(lengths_s), 4)


def target_field(segments: Iterable[Segment]) -> list[dict[str, Any]]:
    """What ``extra["target"]`` holds for a recording made of ``segments``; `target_segments` reads it back.

    Example:
        >>> target_field([Segment("/clips/a.wav", duration_s=1.5, offset_s=0.2)])
        [{'audio_filepath': '/clips/a.wav', 'duration': 1.5, 'offset': 0.2}]
    """
    return [segment_to_json(segment) for segment in segments]


def target_segments(row: Utterance) -> tuple[Segment, ...]:
    """The recording of the row's text; () where it has none.

    Raises:
        ValueError: ``target`` is something else than a list of segments; names the row.

    Example:
        >>> extra = {"target": [{"audio_filepath": "/clips/a.wav", "duration": 1.5}]}
        >>> row = Utterance(id="a", segments=(), text="hello", duration_s=1.5, extra=extra)
        >>> target_segments(row)
        (Segment(audio_filepath='/clips/a.wav', duration_s=1.5, offset_s=0.0, gap_s=0.0),)
    """
    if row.extra.get(TARGET) is None:
        return ()

    if not has_target(row):
        raise ValueError(
            f"row {row.id!r}, field `{TARGET}`: expected a list of segments such as "
            f'[{{"audio_filepath": "a.wav", "duration": 1.5}}], got {row.extra[TARGET]!r}'
        )
    return tuple(_segment(fields) for fields in row.extra[TARGET])


def _segment(fields: dict[str, Any]) -> Segment:
    return Segment(
        audio_filepath=fields["audio_filepath"],
        duration_s=fields.get("duration"),
        offset_s=fields.get("offset") or 0.0,
        gap_s=fields.get("gap") or 0.0,
    )


def has_target(row: Utterance) -> bool:
    """Whether ``extra["target"]`` lists segments; a field of that name may hold anything else in other manifests."""
    listed = row.extra.get(TARGET)
    if not isinstance(listed, list) or not listed:
        return False
    return all(_names_audio(fields) for fields in listed)


def _names_audio(fields: Any) -> bool:
    if not isinstance(fields, dict) or not isinstance(fields.get("audio_filepath"), str):
        return False
    seconds = [fields.get(name, 0.0) for name in ("duration", "offset", "gap")]
    return all(value is None or _is_seconds(value) for value in seconds)


def _is_seconds(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value <= MOST_S


def all_segments(row: Utterance) -> tuple[Segment, ...]:
    """The row's audio and the recording of its text: all the audio that training on the row may use."""
    if not has_target(row):
        return row.segments
    return (*row.segments, *target_segments(row))
