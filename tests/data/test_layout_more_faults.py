"""Further bad input of every layout: lines cut short, members that are none, what lhotse passes over in silence."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from lightning_audiorl import cli
from lightning_audiorl.data import ManifestError
from tests.data.layouts import CASES, Clip, add_member, make_clips
from tests.data.test_layout_faults import FAULTS, Fault, check_fault, edit, first_cut, shard


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return make_clips(tmp_path_factory.mktemp("clips"), 6)


def first_line(path: Path, text: str) -> None:
    """Another first line of a text file, compressed or not."""
    is_packed = path.suffix == ".gz"
    data = gzip.decompress(path.read_bytes()) if is_packed else path.read_bytes()
    lines = [text.encode(), *data.splitlines()[1:]]
    data = b"\n".join(lines) + b"\n"
    path.write_bytes(gzip.compress(data) if is_packed else data)


def first_supervision(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the first supervision of a folder of recordings."""
    first_cut(root / "x_supervisions.jsonl.gz", change)


def first_in_shar(root: Path, audio: bytes | None = None, line: bytes | None = None) -> None:
    """Other audio, or another recording's line, for the first cut of a shar folder."""
    path = root / "recording.000000.tar"
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    with tarfile.open(path, "w") as tar:
        for number, (name, data) in enumerate(members):
            given = {0: audio, 1: line}.get(number)
            add_member(tar, name, data if given is None else given)


def opus(root: Path) -> None:
    """What lhotse's opus shards hold where torchaudio is installed: 48 kHz, beside a recording of 16 kHz."""
    file = io.BytesIO()
    soundfile.write(file, [0.0] * 4800, 48000, format="OGG", subtype="OPUS")
    first_in_shar(root, file.getvalue())


LATIN = "one caf\u00e9".encode("latin-1")

MORE: dict[str, Fault] = {
    "a line of FLEURS that is cut": (
        "fleurs",
        lambda root: first_line(root / "test.tsv", "0\t11-1-0000.wav\tone two"),
        "test.tsv, line 1, field `(whole line)`",
        "complete the line, or remove it",
        "number of columns",
    ),
    "a line of FLEURS without a clip": (
        "fleurs",
        lambda root: first_line(root / "test.tsv", "0\t\tone two\tone two\t|\t1600\tFEMALE"),
        "test.tsv, line 1, field `file_name`",
        "name a clip",
        "missing file",
    ),
    "a clip of FLEURS that is not there": (
        "fleurs",
        lambda root: next((root / "audio" / "test").iterdir()).unlink(),
        "field `audio_filepath`",
        "no such file",
        "missing file",
    ),
    "a text in another encoding": (
        "folder",
        lambda root: (root / "11-1-0000.txt").write_bytes(LATIN),
        "11-1-0000.flac, field `text`",
        "write it in UTF-8",
        "not UTF-8",
    ),
    "an empty text": (
        "folder",
        lambda root: (root / "11-1-0000.txt").write_text("\n"),
        "11-1-0000.flac, field `text`",
        "write what is spoken",
        "empty text",
    ),
    "a name without a file": (
        "table",
        lambda root: edit(root / "metadata.csv", "data/11-1-0000.wav", "data/x.wav"),
        "metadata.csv, line 2, field `audio_filepath`",
        "no such file",
        "missing file",
    ),
    "an empty name": (
        "table",
        lambda root: edit(root / "metadata.csv", "data/11-1-0000.wav", ""),
        "metadata.csv, line 2, field `file_name`",
        "name a file",
        "missing file",
    ),
    "a text of signs alone": (
        "ljspeech",
        lambda root: first_line(root / "metadata.csv", "11-1-0000|...|..."),
        "metadata.csv, line 1, field `text`",
        "write what is spoken",
        "text without words",
    ),
    "a clip that is not there": (
        "commonvoice",
        lambda root: (root / "clips" / "11-1-0000.mp3").unlink(),
        "train.tsv, line 2, field `audio_filepath`",
        "no such file",
        "missing file",
    ),
    "a language that is none": (
        "commonvoice",
        lambda root: edit(root / "train.tsv", "\ten\n", "\tenglsh\n"),
        "train.tsv, line 2, field `lang`",
        "expected an ISO 639 code",
        "unknown language",
    ),
    "a line without its audio": (
        "librispeech",
        lambda root: next(root.rglob("11-1-0000.flac")).unlink(),
        "11-1.trans.txt, line 1, field `audio_filepath`",
        "no such file",
        "missing file",
    ),
    "a transcript in another encoding": (
        "librispeech",
        lambda root: next(root.rglob("11-1.trans.txt")).write_bytes(b"11-1-0000 " + LATIN),
        "11-1.trans.txt, line 1, field `(whole line)`",
        "write the file in UTF-8",
        "not UTF-8",
    ),
    "a transcript without words": (
        "aishell",
        lambda root: edit(next(root.rglob("*v0.8.txt")), "one two", ""),
        "aishell_transcript_v0.8.txt, line 1, field `text`",
        "write what is spoken",
        "empty text",
    ),
    "a file of no length": (
        "aishell",
        lambda root: soundfile.write(next(root.rglob("11-1-0000.wav")), [], 16000),
        "aishell_transcript_v0.8.txt, line 1, field `audio_filepath`",
        "remove the row",
        "zero-length audio",
    ),
    "an utterance without a segment": (
        "kaldi",
        lambda root: edit(root / "segments", "11-1-0000", "11-1-000x"),
        "text, line 1, field `segments`",
        "add one, or remove the utterance",
        "no segment",
    ),
    "a segment without its end": (
        "kaldi",
        lambda root: first_line(root / "segments", "11-1-0000 rec11 0.0"),
        "segments, line 1, field `segments`",
        "<start> <end>",
        "bad segment",
    ),
    "a line of a manifest cut short": (
        "nemo",
        lambda root: first_line(root / "tarred_audio_manifest.json", '{"audio_filepath": "11'),
        "tarred_audio_manifest.json, line 1, field `(whole line)`",
        "write one object per line",
        "bad JSON",
    ),
    "a line that names no member": (
        "nemo",
        lambda root: edit(root / "tarred_audio_manifest.json", "audio_filepath", "audio_file_path"),
        "tarred_audio_manifest.json, line 1, field `audio_filepath`",
        "it names a member",
        "missing file",
    ),
    "a json that is none": (
        "webdataset",
        lambda root: shard(root, ("x.wav", b"RIFF"), ("x.json", b"{text")),
        "shard-000009.tar, member x.json, field `(whole line)`",
        "write one object per line",
        "bad JSON",
    ),
    "a member that is no audio": (
        "webdataset",
        lambda root: shard(root, ("x.wav", b"RIFF"), ("x.txt", b"one")),
        "shard-000009.tar, member x, field `audio_filepath`",
        "x.wav",
        "unreadable audio",
    ),
    "a text of another type": (
        "webdataset",
        lambda root: shard(root, ("x.wav", b"RIFF"), ("x.json", b'{"text": 3}')),
        "shard-000009.tar, member x, field `text`",
        "expected a string",
        "type of text",
    ),
    "a line of cuts cut short": (
        "cuts",
        lambda root: first_line(root, '{"id": "11-1'),
        "cuts.jsonl.gz, line 1, field `(whole line)`",
        "write one object per line",
        "bad JSON",
    ),
    "a cut without an id": (
        "cuts",
        lambda root: first_cut(root, lambda c: c.pop("id")),
        "cuts.jsonl.gz, line 1, field `id`",
        "every row needs it",
        "missing id",
    ),
    "an id that is no string": (
        "cuts",
        lambda root: first_cut(root, lambda c: c.update(id=[1])),
        "cuts.jsonl.gz, line 1, field `id`",
        "put it in quotes",
        "type of id",
    ),
    "a cut of features alone": (
        "cuts",
        lambda root: first_cut(root, lambda c: c.pop("recording")),
        "cuts.jsonl.gz, line 1, field `recording`",
        "have no audio",
        "no recording",
    ),
    "supervisions that are no list": (
        "cuts",
        lambda root: first_cut(root, lambda c: c.update(supervisions={"text": "one"})),
        "cuts.jsonl.gz, line 1, field `supervisions`",
        "expected a list of objects",
        "type of supervisions",
    ),
    "a cut without a start": (
        "cuts",
        lambda root: first_cut(root, lambda c: c.update(start=None)),
        "cuts.jsonl.gz, line 1, field `start`",
        "expected a number",
        "type of start",
    ),
    "a start of several channels": (
        "cuts",
        lambda root: first_cut(root, lambda c: c.update(type="MultiCut", channel=[0, 1])),
        "cuts.jsonl.gz, line 1, field `type`",
        "save_audios",
        "MultiCut",
    ),
    "a claim of a little too much": (
        "cuts",
        lambda root: first_cut(
            root, lambda c: c["recording"].update(num_samples=c["recording"]["num_samples"] + 640)
        ),
        "cuts.jsonl.gz, line 1, field `recording.num_samples`",
        "make the recording again",
        "another length",
    ),
    "a supervision of another recording": (
        "recordings",
        lambda root: first_supervision(root, lambda s: s.update(recording_id="x")),
        "x_supervisions.jsonl.gz, line 1, field `recording_id`",
        "x_recordings.jsonl.gz; add it, or remove the supervision",
        "no recording",
    ),
    "a supervision without an id": (
        "recordings",
        lambda root: first_supervision(root, lambda s: s.pop("id")),
        "x_supervisions.jsonl.gz, line 1, field `id`",
        "every row needs it",
        "missing id",
    ),
    "a supervision behind the end": (
        "recordings",
        lambda root: first_supervision(root, lambda s: s.update(duration=9.0)),
        "x_supervisions.jsonl.gz, line 1, field `duration`",
        "correct the times",
        "longer than its file",
    ),
    "opus of another rate than its recording": (
        "shar",
        opus,
        "cuts.000000.jsonl.gz, line 1, field `recording.sampling_rate`",
        "make the recording again",
        "another rate",
    ),
    "a recording in a shard that is none": (
        "shar",
        lambda root: first_in_shar(root, line=b"{"),
        "recording.000000.tar, member 11-1-0000.json, field `(whole line)`",
        "write one object per line",
        "bad JSON",
    ),
    "audio in a shard that is none": (
        "shar",
        lambda root: first_in_shar(root, audio=b"no flac"),
        "cuts.000000.jsonl.gz, line 1, field `audio_filepath`",
        "11-1-0000.flac",
        "unreadable audio",
    ),
    "bytes that are no audio": (
        "hf",
        lambda root: spoil_arrow(root),
        "row 0, field `audio_filepath`",
        "11-1-0000.flac",
        "unreadable audio",
    ),
}


def spoil_arrow(root: Path) -> None:
    """Nothing of the first clip's head in an Arrow file."""
    path = next(root.rglob("data-00000-*.arrow"))
    data = bytearray(path.read_bytes())
    at = data.index(b"fLaC")
    data[at : at + 64] = bytes(64)
    path.write_bytes(data)


@pytest.mark.fault(
    "Manifests",
    "rows of other tools that cannot be used",
    "place, field and remedy are named; counted under skip",
)
@pytest.mark.parametrize("name", MORE)
def test_a_fault_is_named_and_counted(name: str, tmp_path: Path, clips: list[Clip]) -> None:
    check_fault(MORE[name], tmp_path, clips)


def test_every_layout_has_faults() -> None:
    num_faults = dict.fromkeys(CASES, 0)
    for layout, *_ in (*FAULTS.values(), *MORE.values()):
        num_faults[layout] += 1
    assert min(num_faults.values()) >= 1
    assert {layout for layout, number in num_faults.items() if number < 3} <= {"hf"}


WHOLE: dict[str, tuple[str, str, Callable[[Path], object], str]] = {
    "a table without its columns": (
        "commonvoice",
        "",
        lambda root: edit(root / "train.tsv", "sentence", "words"),
        "train.tsv, line 1, field `.whole line.`: no column sentence among .*is it a table",
    ),
    "a table of files without names": (
        "table",
        "",
        lambda root: edit(root / "metadata.csv", "file_name", "clip"),
        r"metadata.csv, field `.first line.`: no column file_name .*rename one",
    ),
    "two tables": (
        "table",
        "",
        lambda root: (root / "metadata.jsonl").write_text("{}"),
        "field `.whole folder.`: metadata.csv and metadata.jsonl are there; leave one",
    ),
    "a recording listed twice": (
        "kaldi",
        "",
        lambda root: (root / "wav.scp").write_text("rec11 a.wav\nrec11 b.wav\n"),
        "wav.scp, line 2, field `rec11`: .* stands in wav.scp, line 1 already; leave one",
    ),
    "recordings cut short": (
        "recordings",
        "",
        lambda root: first_line(root / "x_recordings.jsonl.gz", '{"id"'),
        r"x_recordings.jsonl.gz, line 1, field `.whole line.`: .*write one object per line",
    ),
    "a packed file cut short": (
        "cuts",
        "",
        lambda root: root.write_bytes(root.read_bytes()[:-40]),
        r"cuts.jsonl.gz, field `.whole file.`: is damaged .*write it again",
    ),
    "a packed file that is none": (
        "cuts",
        "",
        lambda root: root.write_bytes(b"{}"),
        r"cuts.jsonl.gz, field `.whole file.`: is damaged .*write it again",
    ),
    "a shard of the range that is missing": (
        "nemo",
        "/audio_{0..2}.tar",
        lambda root: None,
        "audio_2.tar: no such file",
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_set_that_cannot_be_read_at_all_is_named(
    name: str, tmp_path: Path, clips: list[Clip]
) -> None:
    layout, pattern, harm, message = WHOLE[name]
    case = CASES[layout]
    source = case.write(tmp_path / "set", clips)
    harm(source)
    out = str(tmp_path / "x")
    command = ["manifest", f"{source}{pattern}", "--kind", case.kind, "--out", out, *case.options]
    if layout == "nemo":
        command += ["--shard_manifest", str(source / "tarred_audio_manifest.json")]
    # Skipping is for rows: here it is not known which rows there are.
    for choice in ("error", "skip"):
        with pytest.raises((ManifestError, FileNotFoundError), match=message):
            cli.main([*command, "--on_bad_row", choice])
