"""Bad input of every layout: an error that names file, line or member, field and remedy; counts where it is skipped."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import soundfile

from lightning_audiorl import cli
from lightning_audiorl.data import LhotseCuts, ManifestError, read_manifest
from tests.data.layouts import CASES, Clip, add_member, cut, make_clips, write_lines


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return make_clips(tmp_path_factory.mktemp("clips"), 6)


def edit(path: Path, old: str, new: str) -> None:
    """Replace a piece of a text file that must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def first_cut(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the first cut of a file of cuts."""
    lines = gzip.decompress(root.read_bytes()).decode().splitlines()
    fields = json.loads(lines[0])
    change(fields)
    root.write_bytes(gzip.compress("\n".join([json.dumps(fields), *lines[1:]]).encode()))


def shard(root: Path, *members: tuple[str, bytes]) -> None:
    """One more shard of WebDataset's."""
    with tarfile.open(root / "shard-000009.tar", "w") as tar:
        for name, data in members:
            add_member(tar, name, data)


# Layout, what is done to it, the end of the place and the field, the remedy, and what it is counted as.
Fault = tuple[str, Callable[[Path], object], str, str, str]
FAULTS: dict[str, Fault] = {
    "a text without audio": (
        "folder",
        lambda root: (root / "11-1-0000.flac").unlink(),
        "11-1-0000.txt, field `audio_filepath`",
        "remove the text, or restore the audio",
        "text without audio",
    ),
    "audio without a text": (
        "folder",
        lambda root: (root / "11-1-0000.txt").unlink(),
        "11-1-0000.flac, field `text`",
        "write what is said",
        "no text",
    ),
    "audio that is none": (
        "folder",
        lambda root: (root / "11-1-0000.flac").write_text("<html>"),
        "11-1-0000.flac, field `audio_filepath`",
        "it is a web page; download the file again",
        "unreadable audio",
    ),
    "a table with a comma too many": (
        "table",
        lambda root: edit(root / "metadata.csv", "one two", "one, two"),
        "metadata.csv, line 2, field `(whole line)`",
        "quotation marks",
        "number of fields",
    ),
    "a bar in a text": (
        "ljspeech",
        lambda root: edit(root / "metadata.csv", "one two", "one | two"),
        "metadata.csv, line 1, field `(whole line)`",
        "remove a |",
        "number of fields",
    ),
    "a recording that is not there": (
        "ljspeech",
        lambda root: (root / "wavs" / "11-1-0000.wav").unlink(),
        "metadata.csv, line 1, field `audio_filepath`",
        "no such file",
        "missing file",
    ),
    "a tab in a sentence": (
        "commonvoice",
        lambda root: edit(root / "train.tsv", "one two", "one\ttwo"),
        "train.tsv, line 2, field `(whole line)`",
        "remove a tab",
        "number of fields",
    ),
    "a line without a text": (
        "librispeech",
        lambda root: edit(next(root.rglob("11-1.trans.txt")), " one two", ""),
        "11-1.trans.txt, line 1, field `text`",
        "stands without a text",
        "empty text",
    ),
    "audio without a line": (
        "aishell",
        lambda root: edit(next(root.rglob("*v0.8.txt")), "11-1-0000 one two\n", ""),
        "11-1-0000.wav, field `text`",
        "add one, or remove the file",
        "no text",
    ),
    "a segment that is backwards": (
        "kaldi",
        lambda root: edit(root / "segments", "rec11 0.0000000", "rec11 9.0000000"),
        "segments, line 1, field `segments`",
        "correct the times",
        "bad segment",
    ),
    "a segment behind the end": (
        "kaldi",
        lambda root: edit(root / "segments", "rec11 0.0000000 0.10", "rec11 0.0000000 9.10"),
        "text, line 1, field `duration`",
        "correct the times, or restore the file",
        "longer than its file",
    ),
    "an utterance without a recording": (
        "kaldi",
        lambda root: edit(root / "segments", "rec11", "rec99"),
        "segments, line 1, field `audio_filepath`",
        "add one, or remove the utterance",
        "no recording",
    ),
    "a member that is not there": (
        "nemo",
        lambda root: edit(root / "tarred_audio_manifest.json", "11-1-0000", "11-1-000x"),
        "tarred_audio_manifest.json, line 1, field `audio_filepath`",
        "give all shards",
        "no member",
    ),
    "a duration that is too long": (
        "nemo",
        lambda root: edit(root / "tarred_audio_manifest.json", '"duration": 0.', '"duration": 5.'),
        "tarred_audio_manifest.json, line 1, field `duration`",
        "correct the times",
        "longer than its file",
    ),
    "a sample without a text": (
        "webdataset",
        lambda root: shard(root, ("x.wav", b"RIFF")),
        "shard-000009.tar, member x, field `text`",
        "name its field with text",
        "no text",
    ),
    "a sample without audio": (
        "webdataset",
        lambda root: shard(root, ("x.txt", b"one")),
        "shard-000009.tar, member x, field `audio_filepath`",
        "under a key of its own",
        "members of a key",
    ),
    "an id that is used twice": (
        "webdataset",
        lambda root: (root / "shard-000009.tar").write_bytes(
            (root / "shard-000000.tar").read_bytes()
        ),
        "shard-000009.tar, member 11-1-0000, field `id`",
        "already used in shard-000000.tar, member 11-1-0000; ids must be unique",
        "duplicate id",
    ),
    "a rate that is not that of the file": (
        "cuts",
        lambda root: first_cut(root, lambda c: c["recording"].update(sampling_rate=48000)),
        "cuts.jsonl.gz, line 1, field `recording.sampling_rate`",
        "make the recording again",
        "another rate",
    ),
    "a length that is not that of the file": (
        "cuts",
        lambda root: first_cut(root, lambda c: c["recording"].update(num_samples=6000)),
        "cuts.jsonl.gz, line 1, field `recording.num_samples`",
        "restore the file",
        "another length",
    ),
    "a cut behind the end": (
        "cuts",
        lambda root: first_cut(root, lambda c: c.update(duration=0.5)),
        "cuts.jsonl.gz, line 1, field `duration`",
        "correct the times",
        "longer than its file",
    ),
    "a cut of several supervisions": (
        "cuts",
        lambda root: first_cut(root, lambda c: c["supervisions"].extend(c["supervisions"])),
        "cuts.jsonl.gz, line 1, field `supervisions`",
        "trim_to_supervisions",
        "2 supervisions",
    ),
    "a recording with a transform": (
        "cuts",
        lambda root: first_cut(root, lambda c: c["recording"].update(transforms=[{"name": "x"}])),
        "cuts.jsonl.gz, line 1, field `recording.transforms`",
        "save_audios",
        "transforms",
    ),
    "audio from a command": (
        "cuts",
        lambda root: first_cut(root, lambda c: c["recording"]["sources"][0].update(type="command")),
        "cuts.jsonl.gz, line 1, field `recording.sources`",
        "write it as a file",
        "source command",
    ),
    "a shard of cuts without its audio": (
        "shar",
        lambda root: (root / "recording.000000.tar").unlink(),
        "cuts.000000.jsonl.gz, line 1, field `recording.sources`",
        "recording.*.tar",
        "no shard",
    ),
}


def check_fault(
    fault: Fault, folder: Path, clips: list[Clip], options: tuple[str, ...] = ()
) -> str:
    """A fault is refused with its place and remedy, and nothing is written; what is said where it is skipped."""
    layout, harm, place, remedy, reason = fault
    case = CASES[layout]
    source = case.write(folder / "set", clips)
    harm(source)
    out = folder / "rows.jsonl"
    command = ["manifest", str(source), "--kind", case.kind, "--out", str(out), *case.options]
    command += options
    if layout == "nemo":
        command += ["--shard_manifest", str(source / "tarred_audio_manifest.json")]

    with pytest.raises(ManifestError) as caught:
        cli.main(command)
    assert place in str(caught.value)
    assert remedy in str(caught.value)
    assert not out.exists()
    assert list(folder.glob(".writing-*")) == []

    said = io.StringIO()
    with redirect_stdout(said):
        cli.main([*command, "--on_bad_row", "skip"])
    assert f"x {reason}" in said.getvalue()
    assert 0 < len(read_manifest(out)) <= len(clips)
    return said.getvalue()


@pytest.mark.fault(
    "Manifests",
    "rows of other tools that cannot be used",
    "place, field and remedy are named; counted under skip",
)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_counted(name: str, tmp_path: Path, clips: list[Clip]) -> None:
    check_fault(FAULTS[name], tmp_path, clips)


def test_pipes_and_archives_of_kaldi_are_refused(tmp_path: Path, clips: list[Clip]) -> None:
    root = CASES["kaldi"].write(tmp_path / "set", clips)
    scp = root / "wav.scp"
    for entry, remedy in (
        ("sph2pipe -f wav x.sph |", r"`sph2pipe -f wav x.sph > rec11.wav`"),
        ("raw.ark:1234", "wav-copy"),
    ):
        scp.write_text(f"rec11 {entry}\n")
        with pytest.raises(ManifestError, match=rf"wav.scp, line 1, field `wav.scp`: .*{remedy}"):
            cli.main(["manifest", str(root), "--kind", "kaldi", "--out", str(tmp_path / "x")])


def test_check_reads_what_headers_promise(
    tmp_path: Path, clips: list[Clip], capsys: pytest.CaptureFixture[str]
) -> None:
    root = CASES["ljspeech"].write(tmp_path / "set", clips)
    wav = root / "wavs" / "11-1-0001.wav"
    samples, _ = soundfile.read(wav)
    soundfile.write(wav, list(samples) * 10, 16000, format="FLAC")
    # The header of FLAC goes on saying how much there was.
    wav.write_bytes(wav.read_bytes()[:4000])
    out = str(tmp_path / "rows.jsonl")
    command = ["manifest", str(root), "--kind", "ljspeech", "--out", out, "--check", "true"]
    with pytest.raises(ManifestError, match=r"metadata.csv, line 2, field `audio_filepath`: "):
        cli.main(command)
    cli.main([*command, "--on_bad_row", "skip"])
    assert "left out   1 (1 x" in capsys.readouterr().out


def test_what_is_no_data_set_is_said(tmp_path: Path) -> None:
    def command(kind: str, *args: str) -> list[str]:
        return ["manifest", str(tmp_path), "--kind", kind, "--out", str(tmp_path / "x"), *args]

    for kind, message in {
        "folder": "holds no audio file",
        "ljspeech": r"metadata.csv: no such file \(id\|text",
        "commonvoice": "tables that are there: none",
        "librispeech": "holds no .*trans.txt",
        "aishell": "give the folder with transcript and wav",
        "kaldi": "wav.scp: no such file",
        "lhotse": "name one file of cuts",
        "tar": "no .tar file in it",
        "cds": "expected one of folder, ljspeech",
    }.items():
        with pytest.raises((FileNotFoundError, ValueError), match=message):
            cli.main(command(kind))
    with pytest.raises(ValueError, match="ljspeech takes no --split; options of its own: text"):
        cli.main(command("ljspeech", "--split", "train"))
    with pytest.raises(ValueError, match="kaldi takes no --text; options of its own: none"):
        cli.main(command("kaldi", "--text", "x"))


def test_a_manifest_is_not_written_over(tmp_path: Path, clips: list[Clip]) -> None:
    root = CASES["folder"].write(tmp_path / "set", clips)
    out = tmp_path / "rows.jsonl"
    out.write_text("mine")
    command = ["manifest", str(root), "--kind", "folder", "--out", str(out)]
    with pytest.raises(FileExistsError, match="give --overwrite true"):
        cli.main(command)
    assert out.read_text() == "mine"
    cli.main([*command, "--overwrite", "true"])
    assert len(read_manifest(out)) == len(clips)


def test_compressed_and_damaged_shards_are_refused(tmp_path: Path, clips: list[Clip]) -> None:
    root = CASES["webdataset"].write(tmp_path / "set", clips)
    path = root / "shard-000000.tar"
    data = path.read_bytes()
    command = ["manifest", str(path), "--kind", "tar", "--out", str(tmp_path / "x")]
    for damaged, message in (
        (gzip.compress(data), "is compressed.*unpack it to a plain tar"),
        (data[:4000], "is no tar file, or damaged"),
        (b"x" * 2000, "is no tar file, or damaged"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ManifestError, match=message):
            cli.main(command)


def test_lhotse_itself_writes_what_is_read_here(tmp_path: Path, clips: list[Clip]) -> None:
    lhotse = pytest.importorskip("lhotse", reason="needs lhotse, of the extra `test`")
    path = write_lines(tmp_path / "cuts.jsonl", [cut(clip) for clip in clips])
    cuts = lhotse.CutSet.from_file(path)
    cuts.to_file(tmp_path / "own.jsonl.gz")
    (tmp_path / "shar").mkdir()
    cuts.to_shar(tmp_path / "shar", fields={"recording": "flac"}, shard_size=4)
    cache = str(tmp_path / "cache")
    plain = LhotseCuts(str(path), cache=cache)
    for source in (tmp_path / "own.jsonl.gz", tmp_path / "shar"):
        rows = LhotseCuts(str(source), cache=cache)
        assert [(r.id, r.text, r.speaker) for r in rows] == [
            (r.id, r.text, r.speaker) for r in plain
        ]
        from lightning_audiorl.data import read_audio

        for row, wanted in zip(rows, plain, strict=True):
            assert read_audio(row, 16000).equal(read_audio(wanted, 16000))
