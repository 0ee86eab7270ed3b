"""Rows of the common kind take a short way through the reader: the same rows, and the same refusals."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import pytest

from lightning_audiorl.data import IndexedManifest, ManifestError, ManifestRows
from lightning_audiorl.data.manifest.schema import parse_row

ROWS: list[dict[str, Any]] = [
    {"audio_filepath": "a.wav", "text": "one", "duration": 1.5},
    {"audio_filepath": "/x/../b.wav", "text": "two", "duration": 2, "id": "b", "lang": "de"},
    {"audio_filepath": "synthetic:hum?seed=1", "text": "", "duration": 1.0, "kind": "hum"},
    {"audio_filepath": "c.wav", "text": "drei", "duration": 1.5, "offset": 3, "speaker": "ann"},
    {"segments": [{"audio_filepath": "d.wav", "duration": 1.0}], "text": "four"},
    {"audio_filepath": "e.wav", "text": "5", "duration": 1.5, "gap": 0.5, "keywords": ["5"]},
    {"audio_filepath": "f.wav", "text": "six", "duration": 1.5, "effects": ["telephone"]},
    {"audio_filepath": "g.wav", "text": "7", "duration": 1.5, "spoken_text": "seven", "n": [1]},
    {"audio_filepath": "~/h.wav", "text": "eight", "duration": 1.5, "lang": ""},
    {
        "audio_filepath": "inside:/x.tar?name=a&first=1&size=2&of=9",
        "text": "nine",
        "duration": 0.5,
    },
]


def test_a_row_that_is_read_again_is_the_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in ROWS]
    # A mark before the first line, blank lines, and one that is left out.
    bad = b'{"text": "no audio"}'
    path.write_bytes(codecs.BOM_UTF8 + b"\n\n".join([*lines[:4], bad, *lines[4:]]) + b"\n" + bad)
    indexed = IndexedManifest(str(path), True, False, "skip")
    plain = ManifestRows(str(path), True, False, "skip")

    assert indexed.skipped == {"missing audio_filepath": 2}
    assert len(indexed) == len(ROWS)
    for rows in (list(indexed), [indexed[number] for number in range(len(indexed))]):
        assert rows == list(plain)
        assert [repr(row) for row in rows] == [repr(row) for row in plain]
        assert [row.origin for row in rows] == [row.origin for row in plain]
        assert [list(row.extra) for row in rows] == [list(row.extra) for row in plain]
        assert all(type(row.duration_s) is float for row in rows)


@pytest.mark.parametrize(
    "change",
    [
        {"lang": None},
        {"lang": 0},
        {"audio_filepath": "  "},
        {"duration": float("nan")},
        {"duration": True},
        {"text": "..."},
        {"speaker": None},
        {"id": 7},
        {"lang_id": "de"},
        {"text": "a\0b"},
        {"lang": "englsh"},
    ],
    ids=str,
)
def test_rows_of_the_common_kind_are_checked_like_others(change: dict[str, Any]) -> None:
    """A field that seldom stands in a row takes it the long way; what is refused is the same."""
    messages = set()
    for others in ({}, {"offset": 0.0}):
        row = {"audio_filepath": "a.wav", "text": "one", "duration": 1.5, **others, **change}
        with pytest.raises(ManifestError) as caught:
            parse_row(json.dumps(row).encode(), "m.jsonl, line 1", "/", "m:1", False, False)
        messages.add(str(caught.value))
    assert len(messages) == 1
