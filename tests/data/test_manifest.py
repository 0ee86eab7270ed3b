from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import soundfile

from lightning_audiorl.data import ManifestError, ManifestRows, read_manifest, write_manifest
from lightning_audiorl.data.manifest.files import IndexedManifest, iter_manifest
from lightning_audiorl.data.manifest.schema import full_path
from lightning_audiorl.types import Segment, Utterance
from tests.data.fakes import write_tone


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tone(tmp_path / "audio" / "a.wav", seconds=0.5)
    return tmp_path


def write_lines(folder: Path, *rows: Any) -> Path:
    path = folder / "m.jsonl"
    path.write_text(
        "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows),
        encoding="utf-8",
    )
    return path


def good(**fields: Any) -> dict[str, Any]:
    return {"audio_filepath": "audio/a.wav", "text": "one", "duration": 0.5} | fields


def test_a_plain_row(folder: Path) -> None:
    (row,) = read_manifest(
        write_lines(folder, good(offset=0.1, duration=0.3, keywords=["one"], lang="de", snr=7))
    )
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
        (good(keywords=[1]), "keywords[0]", "expected a string, got int 1"),
        (good(effects="telephone"), "effects", "list of strings, got str"),
        (good(effects=["telephone", 8]), "effects[1]", "expected a string, got int 8"),
        (
            {"text": "one", "segments": [{"audio_filepath": "a.wav", "duration": "1"}]},
            "segments[0].duration",
            'a number of seconds, got str "1"',
        ),
        (
            {"text": "one", "segments": [{"audio_filepath": "a.wav", "offset": -1}]},
            "segments[0].offset",
            "0 seconds or more",
        ),
        ({"text": "one", "segments": [3]}, "segments[0]", "expected an object, got int 3"),
        (good(id=7), "id", "expected a string"),
        (good(id="first"), "id", "already used in line 1"),
        (good(audio_filepath="audio/none.wav"), "audio_filepath", "no such file"),
        (good(audio_filepath="synthetic:white", duration=None), "duration", "synthetic"),
        ({"text": "one", "segments": []}, "segments", "list of objects"),
        (good(offset=0.7, duration=None), "offset", "behind the file's end"),
    ],
)
def test_a_bad_row_names_file_line_and_field(
    folder: Path, line: Any, field: str, says: str
) -> None:
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
            read_manifest(
                write_lines(folder, good(audio_filepath=f"audio/{name}.wav", duration=None))
            )


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
    assert read_manifest(path, check_files=False)[0].segments[0].audio_filepath == str(
        folder / "later.wav"
    )


def test_write_then_read_gives_the_same_rows(folder: Path) -> None:
    wav = str(folder / "audio" / "a.wav")
    rows = [
        Utterance(
            "a",
            (Segment(wav, 0.3, 0.1),),
            "héllo",
            0.3,
            "fr",
            "ann",
            ("héllo",),
            ("telephone",),
            {"snr": 3},
        ),
        Utterance("b", (Segment(wav, 0.2, gap_s=0.1), Segment("synthetic:silence", 0.1)), "x", 0.4),
    ]
    write_manifest(rows, folder / "out.jsonl")
    assert read_manifest(folder / "out.jsonl") == rows


def test_effects_are_read_and_written(folder: Path) -> None:
    path = write_lines(folder, good(effects=["telephone", "noise?snr_db=5"]), good())
    rows = read_manifest(path)
    assert [row.effects for row in rows] == [("telephone", "noise?snr_db=5"), ()]
    assert rows[0].extra == {}
    write_manifest(rows, folder / "out.jsonl")
    assert read_manifest(folder / "out.jsonl")[0].effects == rows[0].effects
    assert '"effects"' not in (folder / "out.jsonl").read_text().splitlines()[1]


# streamed


def test_a_streamed_manifest_gives_the_same_rows_one_by_one(folder: Path) -> None:
    path = write_lines(folder, good(), "\n", good(id="mine"), good(text="", id="bad"), good())
    rows = iter_manifest(path)
    assert [next(rows).id, next(rows).id] == ["m:1", "mine"]  # before the bad line is reached
    with pytest.raises(ManifestError, match="line 4, field `text`"):
        next(rows)
    skipped: Counter[str] = Counter()
    streamed = list(iter_manifest(path, on_bad_row="skip", skipped=skipped))
    assert streamed == read_manifest(path, on_bad_row="skip")
    assert skipped == {"empty text": 1}
    with pytest.raises(FileNotFoundError, match="no such manifest"):
        iter_manifest(folder / "other.jsonl")  # at once
    with pytest.raises(ManifestError, match="no usable row"):
        list(iter_manifest(write_lines(folder, "\n")))


def test_a_duplicate_id_names_both_lines(folder: Path) -> None:
    path = write_lines(
        folder, good(), "\n", good(id="twice"), good(), good(id="twice"), good(id="m:4")
    )
    with pytest.raises(
        ManifestError, match="line 5, field `id`: 'twice' is already used in line 3"
    ):
        list(iter_manifest(path))
    skipped: Counter[str] = Counter()
    assert len(list(iter_manifest(path, on_bad_row="skip", skipped=skipped))) == 3
    assert skipped == {"duplicate id": 2}


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_an_indexed_manifest_has_the_rows_of_one_in_memory(folder: Path, ending: str) -> None:
    path = write_lines(
        folder,
        "\n",
        good(text="é"),
        good(text=" "),
        "\n",
        good(id="mine", duration=None),
        "{]\n",
        good(),
    )
    path.write_bytes(
        path.read_bytes().rstrip().replace(b"\n", (ending or "\n").encode()) + ending.encode()
    )
    expected = ManifestRows(str(path), on_bad_row="skip")
    indexed = IndexedManifest(str(path), on_bad_row="skip")
    assert [row.id for row in expected] == ["m:2", "mine", "m:7"]
    assert list(indexed) == list(expected)
    assert indexed[2] == expected[2]
    assert indexed[0] == expected[0]
    assert indexed.skipped == expected.skipped == {"empty text": 1, "bad JSON": 1}
    assert list(pickle.loads(pickle.dumps(indexed))) == list(expected)
    with pytest.raises(IndexError, match="row 3 asked for, rows 0 to 2 exist"):
        indexed[3]


def test_an_indexed_manifest_is_checked_completely_at_the_start(folder: Path) -> None:
    path = write_lines(folder, good(), good(audio_filepath="audio/none.wav"))
    with pytest.raises(ManifestError, match="line 2, field `audio_filepath`: no such file"):
        IndexedManifest(str(path))
    assert len(IndexedManifest(str(path), check_files=False)) == 2


def test_an_indexed_manifest_that_changed_is_not_read(folder: Path) -> None:
    path = write_lines(folder, good(), good())
    indexed = IndexedManifest(str(path))
    write_lines(folder, good(id="longer than before"), good())
    with pytest.raises(ManifestError, match="changed after it was indexed"):
        indexed[0]


@pytest.mark.parametrize("folder", ["/data", "/data/b.c", "/"])
def test_paths_are_spelt_as_pathlib_does(folder: str) -> None:
    for name in (
        "a.wav",
        "b/a.wav",
        "/b/a.wav",
        "./a",
        "../a",
        "b/./a",
        "b//a",
        "b/",
        "",
        ".",
        ".a",
        "~/a",
        "~",
    ):
        assert full_path(folder, name) == str(Path(folder) / Path(name).expanduser())
