from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import soundfile

from lightning_audiorl.data import ManifestError, ManifestRows, read_manifest, write_manifest
from lightning_audiorl.types import Segment, Utterance
from tests.data.fakes import write_tone


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tone(tmp_path / "audio" / "a.wav", seconds=0.5)
    return tmp_path


def write_lines(folder: Path, *rows: Any) -> Path:
    path = folder / "m.jsonl"
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def good(**fields: Any) -> dict[str, Any]:
    return {"audio_filepath": "audio/a.wav", "text": "one", "duration": 0.5} | fields


def test_a_plain_row(folder: Path) -> None:
    (row,) = read_manifest(write_lines(folder, good(offset=0.1, duration=0.3, keywords=["one"], lang="de", snr=7)))
    assert row == Utterance(
        id="m:1",
        segments=(Segment(str(folder / "audio" / "a.wav"), 0.3, 0.1),),
        text="one",
        duration_s=0.3,
        lang="de",
        keywords=("one",),
        extra={"snr": 7},
    )


def test_default_ids_count_lines_and_blank_lines_are_passed_over(folder: Path) -> None:
    rows = read_manifest(write_lines(folder, good(), "\n", good(id="mine"), good()))
    assert [row.id for row in rows] == ["m:1", "mine", "m:4"]


def test_missing_duration_is_read_from_the_header(folder: Path) -> None:
    row = good(offset=0.2)
    del row["duration"]
    (read,) = read_manifest(write_lines(folder, row))
    assert read.duration_s == pytest.approx(0.3)
    assert read.segments[0].duration_s == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("line", "field", "says"),
    [
        ('{"audio_filepath": "audio/a.wav", \n', "(whole line)", "not JSON"),
        ('["a"]\n', "(whole line)", "expected an object"),
        ({"text": "one", "duration": 1}, "audio_filepath", "missing"),
        ({"audio_filepath": "audio/a.wav", "duration": 1}, "text", "missing"),
        (good(audio_filepath=3), "audio_filepath", "expected a string, got int 3"),
        (good(text=["one"]), "text", "expected a string"),
        (good(text="  "), "text", "allow_empty_text"),
        (good(duration="0.5"), "duration", "expected a number"),
        (good(duration=True), "duration", "expected a number"),
        (good(duration=-1), "duration", "0 seconds or more, got -1"),
        (good(duration=float("nan")), "duration", "0 seconds or more"),
        (good(duration=0), "duration", "is 0"),
        (good(offset=-0.1), "offset", "0 seconds or more"),
        (good(offset=[0]), "offset", "expected a number"),
        (good(lang=1), "lang", "expected a string"),
        (good(speaker=1), "speaker", "expected a string"),
        (good(keywords="one"), "keywords", "list of strings"),
        (good(keywords=[1]), "keywords", "list of strings"),
        (good(id=7), "id", "expected a string"),
        (good(id="first"), "id", "already used in line 1"),
        (good(audio_filepath="audio/none.wav"), "audio_filepath", "no such file"),
        (good(audio_filepath="synthetic:white", duration=None), "duration", "synthetic"),
        ({"text": "one", "segments": []}, "segments", "list of objects"),
        (good(offset=0.7, duration=None), "offset", "behind the file's end"),
    ],
)
def test_a_bad_row_names_file_line_and_field(folder: Path, line: Any, field: str, says: str) -> None:
    path = write_lines(folder, good(id="first"), line)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}, line 2")
    assert f"field `{field}`" in str(caught.value)
    assert says in str(caught.value)

    skipped: Counter[str] = Counter()
    assert [row.id for row in read_manifest(path, on_bad_row="skip", skipped=skipped)] == ["first"]
    assert skipped.total() == 1


def test_unreadable_and_empty_audio_without_a_duration(folder: Path) -> None:
    (folder / "audio" / "noise.wav").write_bytes(b"not audio")
    soundfile.write(folder / "audio" / "empty.wav", [], 8000)
    for name, says in (("noise", "not readable"), ("empty", "no samples")):
        with pytest.raises(ManifestError, match=says):
            read_manifest(write_lines(folder, good(audio_filepath=f"audio/{name}.wav", duration=None)))


def test_invalid_utf8_is_named(folder: Path) -> None:
    (folder / "m.jsonl").write_bytes(json.dumps(good()).encode() + b'\n{"text": "\xff"}\n')
    with pytest.raises(ManifestError, match=r"line 2.*UTF-8"):
        read_manifest(folder / "m.jsonl")


def test_skips_are_counted_by_reason_and_a_manifest_without_rows_is_an_error(folder: Path) -> None:
    path = write_lines(folder, good(text=""), good(), good(text=""), good(duration=-1))
    rows = ManifestRows(str(path), on_bad_row="skip")
    assert len(rows) == 1
    assert rows.skipped == {"empty text": 2, "negative duration": 1}
    with pytest.raises(ManifestError, match="no usable row"):
        read_manifest(write_lines(folder, good(text="")), on_bad_row="skip")
    with pytest.raises(FileNotFoundError, match="no such manifest"):
        read_manifest(folder / "other.jsonl")


def test_what_the_user_may_allow(folder: Path) -> None:
    assert read_manifest(write_lines(folder, good(text="")), allow_empty_text=True)[0].text == ""
    path = write_lines(folder, good(audio_filepath="later.wav"))
    assert read_manifest(path, check_files=False)[0].segments[0].audio_filepath == str(folder / "later.wav")


def test_write_then_read_gives_the_same_rows(folder: Path) -> None:
    wav = str(folder / "audio" / "a.wav")
    rows = [
        Utterance("a", (Segment(wav, 0.3, 0.1),), "héllo", 0.3, "fr", "ann", ("héllo",), {"snr": 3}),
        Utterance("b", (Segment(wav, 0.2, gap_s=0.1), Segment("synthetic:silence", 0.1)), "x", 0.4),
    ]
    write_manifest(rows, folder / "out.jsonl")
    assert read_manifest(folder / "out.jsonl") == rows
