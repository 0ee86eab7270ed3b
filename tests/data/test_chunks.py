"""Long rows are cut between words whose times are known, and refused where they are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from lightning_audiorl.data import Chunks, ManifestRows
from lightning_audiorl.data.audio.reading import read_audio
from lightning_audiorl.types import Segment, Utterance
from tests.command import write_rows
from tests.data.fakes import write_tone

TIMES = [("one", 0.5, 1.0), ("two", 1.5, 2.0), ("three", 3.0, 3.5), ("four", 8.0, 8.5)]
WORDS = [{"word": word, "start": start, "end": end} for word, start, end in TIMES]


def long_row(**changes: Any) -> Utterance:
    row = Utterance(
        "talk",
        (Segment("talk.wav", 10.0, offset_s=5.0),),
        "one two three four",
        10.0,
        keywords=("two", "four"),
        extra={"words": WORDS, "mood": "calm"},
    )
    return replace(row, **changes)


def test_cuts_lie_in_pauses_and_words_stay_whole() -> None:
    short = Utterance("short", (Segment("a.wav"),), "hello", 2.0)
    rows = list(Chunks([short, long_row()], max_s=3.0))
    assert rows[0] is short
    first, second, third = rows[1:]
    assert [row.id for row in rows[1:]] == ["talk#0", "talk#1", "talk#2"]
    assert [row.text for row in rows[1:]] == ["one two", "three", "four"]
    # 2.5 is in the middle of the pause; the last piece begins late enough to hold its word.
    spans = [(row.segments[0].offset_s - 5.0, row.duration_s) for row in (first, second, third)]
    assert spans == [(0.0, 2.5), (2.5, 3.0), (5.5, 3.0)]
    assert all(row.segments[0].duration_s == row.duration_s <= 3.0 for row in rows[1:])
    assert [row.keywords for row in rows[1:]] == [("two",), (), ("four",)]
    assert first.extra == {"mood": "calm"}


def test_a_manifest_is_read_with_its_words(tmp_path: Any) -> None:
    write_tone(tmp_path / "talk.wav", 10.0)
    line = {"audio_filepath": "talk.wav", "text": "one two three four", "duration": 10.0}
    path = write_rows(tmp_path / "m.jsonl", [line | {"words": WORDS}])
    rows = Chunks(ManifestRows(str(path)), max_s=3.0)
    waves = [read_audio(row, 16_000) for row in rows]
    assert [len(wave) for wave in waves] == [40_000, 48_000, 48_000]
    whole = read_audio(ManifestRows(str(path))[0], 16_000)
    assert torch.equal(waves[1], whole[40_000:88_000])


def test_a_long_row_without_times_is_refused_or_counted() -> None:
    untimed = long_row(extra={})
    with pytest.raises(ValueError, match=r"row 'talk' lasts 10.00 s and has no field words.*align"):
        Chunks([untimed], max_s=3.0)
    rows = Chunks([untimed, long_row(id="b")], max_s=3.0, on_untimed="skip")
    assert (len(rows), rows.num_skipped) == (3, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (WORDS[:3], "its words are not those of its text"),
        ([WORDS[1], WORDS[0], *WORDS[2:]], r"words\[1\], 'one', is at 0.5 to 1.0 s"),
        ([*WORDS[:3], {"word": "four", "start": 9.0, "end": 11.0}], r"beyond the row's 10.00 s"),
        ([{"word": "one"}], r"words\[0\] is .*want"),
        ([*WORDS[:3], {"word": "four", "start": 4.0, "end": 8.5}], "'four' lasts longer than 3.0"),
    ],
)
def test_words_that_do_not_fit_are_named(words: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"row 'talk': .*{said}"):
        Chunks([long_row(extra={"words": words})], max_s=3.0)


def test_what_is_joined_and_settings_that_cannot_be_are_refused() -> None:
    joined = long_row(segments=(Segment("a.wav", 5.0), Segment("b.wav", 5.0)))
    with pytest.raises(ValueError, match="is joined of 2 recordings"):
        Chunks([joined], max_s=3.0)
    with pytest.raises(ValueError, match=r"Chunks\.max_s"):
        Chunks([], max_s=0.0)
    with pytest.raises(ValueError, match=r"Chunks\.on_untimed"):
        Chunks([], on_untimed="drop")  # type: ignore[arg-type]
