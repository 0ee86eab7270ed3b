"""Rows of any make as wav files of 16 kHz, and manifests that name them relative to their own folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import soundfile

from lightning_audiorl.data import ManifestRows, read_audio, write_manifest
from lightning_audiorl.data.draws import settings_name
from lightning_audiorl.data.manifest.schema import PREFIX
from lightning_audiorl.types import Segment, Utterance

RATE_HZ = 16_000
#: A recording that resampling takes beyond full scale is made softer, to this peak.
_PEAK = 0.99


def as_wav(row: Utterance, out: Path, folder: str) -> Utterance:
    """The row with all of its audio in one file, ``out/wav/<folder>/<id>.wav``: 16 kHz, mono, 16 bit.

    A file that is there is kept. It appears whole or not at all.

    Args:
        row: read by `read_audio`.
        out: where the manifest of the row will lie.
        folder: below ``out/wav``.

    Returns:
        The row; its path is relative to ``out``.

    Raises:
        ValueError: a made sound that reached full scale, where it may be clipped.
        AudioError: see `read_audio`.
    """
    stem = re.sub(r"[^\w.+-]+", "_", row.id)
    # Two ids may differ in such letters alone, as a/b and a b do.
    if stem != row.id:
        stem = f"{stem}-{settings_name(row.id)}"
    name = Path("wav") / folder / f"{stem}.wav"
    path = out / name
    if not path.is_file():
        _write(row, path)

    num_samples = soundfile.info(str(path)).frames
    duration_s = num_samples / RATE_HZ
    return replace(row, segments=(Segment(str(name), duration_s),), duration_s=duration_s)


def _write(row: Utterance, path: Path) -> None:
    wave = read_audio(row, RATE_HZ)
    peak = float(wave.abs().max())
    made = any(segment.audio_filepath.startswith(PREFIX) for segment in row.segments)
    if made and peak >= 1.0:
        raise ValueError(f"row {row.id!r}: its sound reaches full scale; lower level_db")
    if peak >= 1.0:
        wave = wave * (_PEAK / peak)

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    soundfile.write(str(part), wave.numpy(), RATE_HZ, format="WAV", subtype="PCM_16")
    os.replace(part, path)


def write_rows(rows: Iterable[Utterance], path: Path) -> ManifestRows:
    """Write a manifest, whole or not at all, with audio named relative to its folder; returns its rows, read again."""
    part = path.with_suffix(".part")
    write_manifest([_relative(row, path.parent) for row in rows], part)
    os.replace(part, path)
    return ManifestRows(str(path), allow_empty_text=True)


def _relative(row: Utterance, folder: Path) -> Utterance:
    segments: list[Segment] = []
    for segment in row.segments:
        name = Path(segment.audio_filepath)
        if name.is_absolute() and name.is_relative_to(folder.absolute()):
            name = name.relative_to(folder.absolute())
        segments.append(replace(segment, audio_filepath=str(name)))
    return replace(row, segments=tuple(segments))


def write_json(value: object, path: Path) -> None:
    """Write a JSON file, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(part, path)


def counts(rows: Sequence[Utterance]) -> dict[str, object]:
    """Rows, minutes, longest row in seconds, words, and rows by kind.

    Example:
        >>> counts([Utterance("a", (), "one two", 1.5, extra={"kind": "prompt"})])
        {'rows': 1, 'minutes': 0.03, 'longest_s': 1.5, 'words': 2, 'kinds': {'prompt': 1}}
    """
    kinds: dict[str, int] = {}
    for row in rows:
        kind = str(row.extra["kind"])
        kinds[kind] = kinds.get(kind, 0) + 1
    return {
        "rows": len(rows),
        "minutes": round(sum(row.duration_s for row in rows) / 60, 2),
        "longest_s": round(max(row.duration_s for row in rows), 2),
        "words": sum(len(row.text.split()) for row in rows),
        "kinds": kinds,
    }


def named(rows: Iterable[Utterance], kind: str | Callable[[Utterance], str]) -> list[Utterance]:
    """Rows whose ``extra["kind"]`` says what they are."""
    found: list[Utterance] = []
    for row in rows:
        name = kind if isinstance(kind, str) else kind(row)
        found.append(replace(row, extra={**row.extra, "kind": name}))
    return found
