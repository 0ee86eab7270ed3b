"""The same few clips written in every layout, so that each can be compared with a plain manifest of them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

RATE_HZ = 16000
#: Quotation marks, commas, a tab's neighbour: what a reader of csv would take for more than text.
TEXTS = ("one two", '"three" he said', "four, five", 'say "six', "seven's eight", "nine zero one")


@dataclass(frozen=True)
class Clip:
    """One recording of 16 bits: its id ``<speaker>-1-<number>``, speaker, text and file."""

    id: str
    speaker: str
    text: str
    path: Path

    @property
    def seconds(self) -> float:
        """Its length."""
        return soundfile.info(self.path).duration


def make_clips(folder: Path, num_clips: int = 24) -> list[Clip]:
    """Clips of noise and tones of different lengths by three speakers, sorted by id."""
    folder.mkdir(parents=True, exist_ok=True)
    clips: list[Clip] = []
    for number in range(num_clips):
        speaker = str(11 + number * 3 // num_clips)
        name = f"{speaker}-1-{number:04d}"
        draw = np.random.default_rng(number)
        num_samples = 1600 + 160 * number + int(draw.integers(0, 80))
        samples = draw.integers(-9000, 9000, num_samples, dtype=np.int16)
        path = folder / f"{name}.wav"
        soundfile.write(path, samples, RATE_HZ, subtype="PCM_16")
        clips.append(Clip(name, speaker, TEXTS[number % len(TEXTS)], path))
    return clips


def manifest(folder: Path, clips: Sequence[Clip]) -> Path:
    """The plain manifest that all others are compared with."""
    path = folder / "rows.jsonl"
    rows = [
        {"id": c.id, "audio_filepath": str(c.path), "text": c.text, "speaker": c.speaker}
        for c in clips
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def encoded(clip: Clip, ending: str) -> bytes:
    """The clip in another lossless format."""
    samples, rate_hz = soundfile.read(clip.path, dtype="int16")
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=ending.upper(), subtype="PCM_16")
    return file.getvalue()


def placed(path: Path, data: bytes) -> Path:
    """``data`` in a file, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def folder_of_files(root: Path, clips: Sequence[Clip]) -> Path:
    for clip in clips:
        placed(root / f"{clip.id}.flac", encoded(clip, "flac"))
        (root / f"{clip.id}.txt").write_text(clip.text + "\n")
    return root


def folder_with_table(root: Path, clips: Sequence[Clip]) -> Path:
    for clip in clips:
        placed(root / "data" / clip.path.name, clip.path.read_bytes())
    with (root / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "id", "transcription", "speaker"])
        for clip in clips:
            table.writerow([f"data/{clip.path.name}", clip.id, clip.text, clip.speaker])
    return root


def ljspeech(root: Path, clips: Sequence[Clip]) -> Path:
    for clip in clips:
        placed(root / "wavs" / clip.path.name, clip.path.read_bytes())
    lines = [f"{clip.id}|No. {clip.text}|{clip.text}\n" for clip in clips]
    (root / "metadata.csv").write_text("".join(lines))
    return root


def commonvoice(root: Path, clips: Sequence[Clip]) -> Path:
    lines = ["client_id\tpath\tsentence\tup_votes\tage\tlocale\n"]
    for clip in clips:
        # A name is no format: soundfile knows a clip by its bytes.
        placed(root / "clips" / f"{clip.id}.mp3", clip.path.read_bytes())
        lines.append(f"{clip.speaker}\t{clip.id}.mp3\t{clip.text}\t2\t\ten\n")
    (root / "train.tsv").write_text("".join(lines))
    return root


def librispeech(root: Path, clips: Sequence[Clip]) -> Path:
    for clip in clips:
        chapter = root / "train-clean-5" / clip.speaker / "1"
        placed(chapter / f"{clip.id}.flac", encoded(clip, "flac"))
        with (chapter / f"{clip.speaker}-1.trans.txt").open("a") as file:
            file.write(f"{clip.id} {clip.text}\n")
    return root


def aishell(root: Path, clips: Sequence[Clip]) -> Path:
    lines = []
    for clip in clips:
        placed(root / "wav" / "train" / clip.speaker / clip.path.name, clip.path.read_bytes())
        lines.append(f"{clip.id} {clip.text}\n")
    placed(root / "transcript" / "aishell_transcript_v0.8.txt", "".join(lines).encode())
    return root


def fleurs(root: Path, clips: Sequence[Clip]) -> Path:
    """A table without a header; sentences have numbers that are not unique."""
    folder = root / "en_us"
    lines = []
    for number, clip in enumerate(clips):
        placed(folder / "audio" / "test" / clip.path.name, clip.path.read_bytes())
        texts = f"{clip.text}\t{clip.text.lower()}\t|"
        lines.append(f"{number // 2}\t{clip.path.name}\t{texts}\t1600\tFEMALE\n")
    (folder / "test.tsv").write_text("".join(lines))
    return folder


def kaldi(root: Path, clips: Sequence[Clip]) -> Path:
    """One recording per speaker, of which the clips are segments."""
    root.mkdir(parents=True)
    files: dict[str, list[np.ndarray]] = {}
    lines: dict[str, list[str]] = {"text": [], "utt2spk": [], "segments": [], "wav.scp": []}
    for clip in clips:
        pieces = files.setdefault(clip.speaker, [])
        start = sum(map(len, pieces))
        samples, rate_hz = soundfile.read(clip.path, dtype="int16")
        pieces.append(samples)
        end = start + len(samples)
        times = f"{start / rate_hz:.7f} {end / rate_hz:.7f}"
        lines["segments"].append(f"{clip.id} rec{clip.speaker} {times}\n")
        lines["text"].append(f"{clip.id} {clip.text}\n")
        lines["utt2spk"].append(f"{clip.id} {clip.speaker}\n")
    for speaker, pieces in files.items():
        path = root / f"rec{speaker}.wav"
        soundfile.write(path, np.concatenate(pieces), rate_hz, subtype="PCM_16")
        lines["wav.scp"].append(f"rec{speaker} {path}\n")
    for name, content in lines.items():
        (root / name).write_text("".join(content))
    return root


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """One file into a tar."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def nemo(root: Path, clips: Sequence[Clip]) -> Path:
    """NeMo's two shards and their one manifest."""
    root.mkdir(parents=True)
    rows = []
    for shard in range(2):
        with tarfile.open(root / f"audio_{shard}.tar", "w") as tar:
            for number, clip in enumerate(clips):
                if number * 2 // len(clips) == shard:
                    add_member(tar, f"{clip.id}.flac", encoded(clip, "flac"))
                    rows.append(
                        {
                            "audio_filepath": f"{clip.id}.flac",
                            "duration": clip.seconds,
                            "text": clip.text,
                            "speaker": clip.speaker,
                            "shard_id": shard,
                        }
                    )
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "tarred_audio_manifest.json").write_text(lines)
    return root


def webdataset(root: Path, clips: Sequence[Clip]) -> Path:
    root.mkdir(parents=True)
    for shard in range(3):
        with tarfile.open(root / f"shard-{shard:06d}.tar", "w") as tar:
            for number, clip in enumerate(clips):
                if number * 3 // len(clips) == shard:
                    fields = {"text": clip.text, "speaker": clip.speaker, "duration": 99}
                    add_member(tar, f"{clip.id}.wav", clip.path.read_bytes())
                    add_member(tar, f"{clip.id}.json", json.dumps(fields).encode())
    return root


def hf(root: Path, clips: Sequence[Clip]) -> Path:
    """The clips as bytes, in two Arrow files."""
    datasets = pytest.importorskip("datasets", reason="needs the extra `datasets`")
    columns: dict[str, list[Any]] = {
        "audio": [{"bytes": encoded(c, "flac"), "path": f"{c.id}.flac"} for c in clips],
        "sentence": [c.text for c in clips],
        "id": [c.id for c in clips],
        "speaker_id": [int(c.speaker) for c in clips],
    }
    # As bytes, and then said to be audio: encoding would want torchcodec.
    data = datasets.Dataset.from_dict(columns)
    data = data.cast_column("audio", datasets.Audio(decode=False))
    datasets.DatasetDict({"train": data}).save_to_disk(str(root), num_shards={"train": 2})
    return root


def recording(clip: Clip, path: Path | None = None) -> dict[str, Any]:
    """The recording that lhotse's ``Recording.from_file`` makes."""
    info = soundfile.info(clip.path)
    return {
        "id": clip.id,
        "sources": [{"type": "file", "channels": [0], "source": str(path or clip.path)}],
        "sampling_rate": info.samplerate,
        "num_samples": info.frames,
        "duration": info.frames / info.samplerate,
        "channel_ids": [0],
    }


def cut(clip: Clip) -> dict[str, Any]:
    """The cut of a whole recording with one supervision."""
    made = recording(clip)
    supervision = {
        "id": clip.id,
        "recording_id": clip.id,
        "start": 0.0,
        "duration": made["duration"],
        "channel": 0,
        "text": clip.text,
        "language": "English",
        "speaker": clip.speaker,
    }
    return {
        "id": clip.id,
        "start": 0.0,
        "duration": made["duration"],
        "channel": 0,
        "supervisions": [supervision],
        "recording": made,
        "type": "MonoCut",
    }


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """JSON lines, compressed where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def lhotse_cuts(root: Path, clips: Sequence[Clip]) -> Path:
    return write_lines(root / "cuts.jsonl.gz", [cut(clip) for clip in clips])


def lhotse_recordings(root: Path, clips: Sequence[Clip]) -> Path:
    write_lines(root / "x_recordings.jsonl.gz", [recording(clip) for clip in clips])
    supervisions = [cut(clip)["supervisions"][0] for clip in clips]
    write_lines(root / "x_supervisions.jsonl.gz", supervisions)
    return root


def lhotse_shar(root: Path, clips: Sequence[Clip]) -> Path:
    """What ``CutSet.to_shar`` writes with fields={"recording": "flac"}; a test compares the two."""
    root.mkdir(parents=True)
    for shard in range(2):
        part = [c for number, c in enumerate(clips) if number * 2 // len(clips) == shard]
        cuts = [cut(clip) for clip in part]
        for one in cuts:
            one["recording"]["sources"] = [{"type": "shar", "channels": [0], "source": ""}]
        write_lines(root / f"cuts.{shard:06d}.jsonl.gz", cuts)
        with tarfile.open(root / f"recording.{shard:06d}.tar", "w") as tar:
            for clip, one in zip(part, cuts, strict=True):
                add_member(tar, f"{clip.id}.flac", encoded(clip, "flac"))
                add_member(tar, f"{clip.id}.json", json.dumps(one["recording"]).encode())
    return root


@dataclass(frozen=True)
class Case:
    """A layout as a test writes and reads it.

    Args:
        kind: of ``audiorl manifest``.
        write: writes the clips; gives what is the source.
        options: of the command.
        speakers: whether it names them.
    """

    kind: str
    write: Callable[[Path, Sequence[Clip]], Path]
    options: tuple[str, ...] = ()
    speakers: bool = True


CASES: dict[str, Case] = {
    "folder": Case("folder", folder_of_files, speakers=False),
    "table": Case("folder", folder_with_table),
    "ljspeech": Case("ljspeech", ljspeech, speakers=False),
    "commonvoice": Case("commonvoice", commonvoice, ("--split", "train")),
    "librispeech": Case("librispeech", librispeech, ("--split", "train-clean-5")),
    "aishell": Case("aishell", aishell, ("--split", "train")),
    "fleurs": Case("fleurs", fleurs, ("--split", "test"), speakers=False),
    "kaldi": Case("kaldi", kaldi),
    "cuts": Case("lhotse", lhotse_cuts),
    "recordings": Case("lhotse", lhotse_recordings),
    "shar": Case("lhotse", lhotse_shar),
    "hf": Case("hf", hf, ("--split", "train")),
    "nemo": Case("tar", nemo),
    "webdataset": Case("tar", webdataset),
}
