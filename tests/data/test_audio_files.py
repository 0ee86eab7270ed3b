"""Audio files of every kind: each is read right, or refused by an error that names it in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lightning_audiorl.data import AudioError, ManifestError
from lightning_audiorl.data.audio import read_segment
from lightning_audiorl.data.manifest import read_manifest
from lightning_audiorl.types import Segment
from tests.data import audio_files
from tests.data.audio_files import Kind

FLAC = Kind("flac", "FLAC", "PCM_16")
WAV = Kind("wav", "WAV", "PCM_16")
VORBIS = Kind("ogg", "OGG", "VORBIS", 44100)


def read(
    path: Path, rate_hz: int, offset_s: float = 0.0, seconds: float | None = None
) -> np.ndarray:
    segment = Segment(str(path), offset_s=offset_s, duration_s=seconds)
    return read_segment(segment, rate_hz).numpy()


def duration_s(path: Path) -> float:
    """What a row without `duration` gets."""
    manifest = path.with_suffix(".jsonl")
    manifest.write_text(json.dumps({"audio_filepath": str(path), "text": "a"}))
    return read_manifest(manifest)[0].duration_s


def check_slices(path: Path, whole: np.ndarray, rate_hz: int, seed: int = 0) -> None:
    """Stretches anywhere in a file equal those of the whole."""
    count = rate_hz // 8
    starts = np.random.default_rng(seed).integers(0, len(whole) - count, 4)
    for start in (*starts.tolist(), len(whole) - count):
        part = read(path, rate_hz, start / rate_hz, count / rate_hz)
        assert part.shape == (count,)
        assert np.abs(part - whole[start : start + count]).max() < 1e-5, f"at {start}"


def refusal(path: Path) -> str:
    """The line that refuses a file, from a row with a duration and from one without; it names the file."""
    with pytest.raises(AudioError) as caught:
        read(path, 16000, seconds=0.5)
    with pytest.raises(ManifestError):
        duration_s(path)
    message = str(caught.value)
    assert message.count(str(path)) == 1
    assert "\n" not in message
    assert len(message) - len(str(path)) < 200
    return message


@pytest.mark.fault(
    "Audio",
    "a format, coding, rate or number of channels that corpora come in",
    "read to the sample or refused by name; a stretch equals that of the whole file",
)
@pytest.mark.parametrize("kind", list(audio_files.kinds()), ids=lambda kind: kind.name)
def test_every_kind_of_file_is_read(tmp_path: Path, kind: Kind) -> None:
    path = audio_files.write(tmp_path, kind)
    mono = audio_files.signal(kind.rate_hz, kind.channels).mean(axis=1)
    whole = read(path, kind.rate_hz)

    assert 0 <= len(whole) - len(mono) <= kind.padding
    error = np.square(whole[: len(mono)] - mono).mean() / np.square(mono).mean()
    assert error**0.5 < kind.tolerance
    assert duration_s(path) == len(whole) / kind.rate_hz
    check_slices(path, whole, kind.rate_hz)


def headerless(rate_hz: int) -> tuple[bytes, int]:
    frames, num_samples = audio_files.mp3_frames(audio_files.mp3(rate_hz))
    return b"".join(frames[1:]), num_samples * (len(frames) - 1)


def cut_mp3(rate_hz: int) -> tuple[bytes, int]:
    frames, num_samples = audio_files.mp3_frames(audio_files.mp3(rate_hz))
    # Its header drops what the encoder and the decoder put before the sound: 576 and 529 samples.
    kept = frames[: len(frames) // 2]
    return b"".join(kept) + frames[len(kept)][:20], num_samples * (len(kept) - 1) - 576 - 529


def tagged_mp3(rate_hz: int) -> tuple[bytes, int]:
    data, num_frames = headerless(rate_hz)
    id3v1 = b"TAG" + bytes(125)
    return audio_files.id3_tag() + data + audio_files.ape_tag() + id3v1, num_frames


def mp3_behind_noise(rate_hz: int) -> tuple[bytes, int]:
    noise = np.random.default_rng(2).bytes(5000)
    return noise + audio_files.mp3(rate_hz), round(audio_files.SECONDS * rate_hz)


def mp3_from_the_middle(rate_hz: int) -> tuple[bytes, int]:
    frames, num_samples = audio_files.mp3_frames(audio_files.mp3(rate_hz))
    rest = frames[len(frames) // 3 :]
    return frames[len(frames) // 3 - 1][50:] + b"".join(rest), num_samples * len(rest)


@pytest.mark.fault(
    "Audio",
    "an mp3 file without a header of its length, cut at either end, or with tags and other bytes around it",
    "duration and audio are those of a full decode, never the header's guess",
)
@pytest.mark.parametrize("rate_hz", [16000, 24000, 44100, 48000])
@pytest.mark.parametrize(
    "make", [headerless, cut_mp3, tagged_mp3, mp3_behind_noise, mp3_from_the_middle]
)
def test_damaged_mp3_files_by_what_they_hold(
    tmp_path: Path, make: Callable[[int], tuple[bytes, int]], rate_hz: int
) -> None:
    data, num_frames = make(rate_hz)
    path = tmp_path / "a.mp3"
    path.write_bytes(data)
    whole = read(path, rate_hz)
    assert len(whole) == num_frames
    assert duration_s(path) == num_frames / rate_hz
    check_slices(path, whole, rate_hz)

    # The sound itself: the last second of a file is that of the signal, its first one where it was cut.
    if make is not cut_mp3:
        signal = audio_files.signal(rate_hz)[:, 0]
        ending = signal[-rate_hz // 2 :]
        lags = np.correlate(whole[-rate_hz:], ending, "valid")
        assert lags.max() > 0.9 * float(ending @ ending)


@pytest.mark.fault(
    "Audio",
    "several mp3 or Ogg files joined in one (cat a.mp3 b.mp3)",
    "all of them are read, one after the other, each without the silence that its encoder added",
)
@pytest.mark.parametrize("kind", ["mp3", "tagged mp3", "vorbis", "opus"])
def test_joined_files_are_read_whole(tmp_path: Path, kind: str) -> None:
    rate_hz = 48000 if kind == "opus" else 44100
    if "mp3" in kind:
        first = audio_files.mp3(rate_hz)
        second = audio_files.mp3(rate_hz, seconds=1.5)
    else:
        of_ogg = Kind("ogg", "OGG", kind.upper(), rate_hz)
        first = audio_files.encoded(of_ogg)
        second = audio_files.encoded(of_ogg, seconds=1.5)

    halves = []
    for number, data in enumerate((first, second)):
        path = tmp_path / f"{number}.{kind[-3:]}"
        path.write_bytes(data)
        halves.append(read(path, rate_hz))

    path = tmp_path / f"joined.{kind[-3:]}"
    between = audio_files.id3_tag() if kind == "tagged mp3" else b""
    path.write_bytes(first + between + second)
    whole = read(path, rate_hz)
    assert len(whole) == len(halves[0]) + len(halves[1])
    assert np.abs(whole - np.concatenate(halves)).max() < 1e-5
    assert duration_s(path) == len(whole) / rate_hz
    check_slices(path, whole, rate_hz)


@pytest.mark.fault(
    "Audio",
    "mp3 files of different rates or channels joined in one",
    "refused by name, with the command that converts it",
)
def test_joined_files_of_different_rates_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(audio_files.mp3(44100) + audio_files.mp3(48000))
    with pytest.raises(AudioError, match=r"a\.mp3: joined from files of 44100 Hz.*48000 Hz"):
        read(path, 16000)
    with pytest.raises(ManifestError, match="ffmpeg"):
        duration_s(path)


@pytest.mark.fault(
    "Audio",
    "a row with an offset in an mp3 file of variable bitrate",
    "it begins as that stretch of the whole file does, not with silence",
)
@pytest.mark.parametrize("rate_hz", [16000, 24000, 44100, 48000])
def test_offsets_in_mp3_are_exact(tmp_path: Path, rate_hz: int) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(audio_files.mp3(rate_hz, seconds=12.0))
    whole = read(path, rate_hz)
    for seed in range(3):
        check_slices(path, whole, rate_hz, seed)


@pytest.mark.fault(
    "Audio",
    "a row with an offset in an Ogg file with long pages, as ffmpeg writes them",
    "it is that stretch of the whole file, not one some milliseconds beside it",
)
def test_offsets_in_ogg_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    path.write_bytes(audio_files.with_long_pages(audio_files.encoded(VORBIS, 12.0)))
    whole = soundfile.read(path, dtype="float32")[0]
    assert len(whole) == 12 * 44100
    for seed in range(3):
        check_slices(path, whole, 44100, seed)


@pytest.mark.fault(
    "Audio",
    "a row with an offset in an Ogg file that was cut at its start",
    "it is that stretch of what is left",
)
@pytest.mark.parametrize(
    "kind", [VORBIS, Kind("opus", "OGG", "OPUS", 48000)], ids=["vorbis", "opus"]
)
def test_offsets_in_cut_ogg_are_exact(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "a.ogg"
    path.write_bytes(audio_files.without_first_pages(audio_files.encoded(kind, 12.0), 5))
    whole = read(path, kind.rate_hz)
    assert 6 * kind.rate_hz < len(whole) < 12 * kind.rate_hz
    for seed in range(3):
        check_slices(path, whole, kind.rate_hz, seed)


@pytest.mark.fault(
    "Audio",
    "a FLAC file whose header does not know its length (written to a pipe)",
    "read whole; its row gets the decoded length",
)
def test_flac_without_a_total(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(audio_files.flac_of(0, audio_files.encoded(FLAC)))
    whole = read(path, 16000)
    assert np.abs(whole - audio_files.signal(16000)[:, 0]).max() < 1e-4
    assert duration_s(path) == audio_files.SECONDS
    check_slices(path, whole, 16000)


@pytest.mark.fault(
    "Audio",
    "a FLAC header that promises hours which are not there",
    "refused by name before any memory is taken; rows within the file are read",
)
@pytest.mark.parametrize("num_frames", [10**9, 2**36 - 1])
def test_flac_that_promises_too_much(tmp_path: Path, num_frames: int) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(audio_files.flac_of(num_frames, audio_files.encoded(FLAC)))
    with pytest.raises(AudioError, match=r"a\.flac: its header promises \d+ s") as caught:
        read(path, 16000)
    assert "\n" not in str(caught.value)
    with pytest.raises(ManifestError, match=r"a\.flac: its header promises \d+ s"):
        duration_s(path)
    with pytest.raises(AudioError, match=r"a\.flac"):
        read(path, 16000, seconds=num_frames / 16000)
    assert len(read(path, 16000, 1.0, 0.5)) == 8000


@pytest.mark.fault(
    "Audio",
    "a FLAC file that was cut",
    "refused by name where a row lies beyond the cut, read where it does not",
)
def test_flac_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    data = audio_files.encoded(FLAC)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match=r"a\.flac: damaged"):
        read(path, 16000)
    assert len(read(path, 16000, 0.1, 0.5)) == 8000


@pytest.mark.fault(
    "Audio",
    "a wav file whose header gives the wrong size (0xFFFFFFFF, too much, an odd chunk, other bytes at its end)",
    "what is there is read",
)
@pytest.mark.parametrize("damage", ["stream", "too much", "odd chunk", "trailing", "cut"])
def test_wav_headers(tmp_path: Path, damage: str) -> None:
    data = audio_files.encoded(WAV)
    num_frames = round(audio_files.SECONDS * 16000)
    if damage == "stream":
        data = audio_files.wav_of(2**32 - 1, data)
    elif damage == "too much":
        data = audio_files.wav_of(10**9, data)
    elif damage == "odd chunk":
        data = data[:12] + b"LIST" + (3).to_bytes(4, "little") + b"abc\x00" + data[12:]
    elif damage == "trailing":
        data += b"LIST" + bytes(7)
    else:
        data = data[:-8001]
        num_frames -= 4001

    path = tmp_path / "a.wav"
    path.write_bytes(data)
    whole = read(path, 16000)
    assert len(whole) == num_frames
    assert np.abs(whole - audio_files.signal(16000)[:num_frames, 0]).max() < 1e-4
    assert duration_s(path) == num_frames / 16000


ENOUGH = 40
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty.wav": (b"", "it is empty"),
    "empty.mp3": (b"", "it is empty"),
    "empty.flac": (b"", "it is empty"),
    "page.wav": (b"<!DOCTYPE html>\n<html><body>404</body></html>" * ENOUGH, "a web page"),
    "page.mp3": (b"\n  <html><body>404</body></html>" * ENOUGH, "a web page"),
    "page.snd": (b"<html><body>404</body></html>" * ENOUGH, "a web page"),
    "error.flac": (b'{"error": "no such key"}', "a JSON text"),
    "error.ogg": (b'<?xml version="1.0"?><Error/>', "an XML text"),
    "pointer.wav": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "Git LFS pointer.*git lfs pull",
    ),
    "notes.wav": (b"good morning, this is a transcript\n" * ENOUGH, "it is text"),
    "notes.gsm": (b"good morning, this is a transcript\n" * ENOUGH, "it is text"),
    "samples.raw": (np.random.default_rng(0).bytes(8000), "its format is not known"),
    "random.wav": (np.random.default_rng(1).bytes(8000), "its format is not known"),
    "random.mp3": (np.random.default_rng(2).bytes(8000), "its format is not known"),
    "zeros.wav": (bytes(8000), "begins with zeros"),
    "film.m4a": (
        b"\0\0\0\x20ftypM4A " + bytes(4000),
        "MP4 or M4A; convert it: ffmpeg -i film.m4a film.flac",
    ),
    "film.wav": (b"\0\0\0\x20ftypisom" + bytes(4000), "MP4 or M4A; convert it: ffmpeg"),
    "talk.webm": (b"\x1a\x45\xdf\xa3" + bytes(4000), "WebM or Matroska"),
    "talk.aac": (b"\xff\xf1\x50\x80" + bytes(4000), "AAC"),
    "talk.wma": (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(4000), "Windows Media"),
    "talk.amr": (b"#!AMR\n" + bytes(4000), "AMR"),
    "talk.wv": (b"wvpk" + bytes(4000), "WavPack"),
    "all.zip": (b"PK\x03\x04" + bytes(4000), "zip archive"),
    "a.wav.gz": (b"\x1f\x8b\x08\x00" + bytes(4000), "gzip archive"),
    "bare.wav": (b"RIFF\x24\x00\x00\x00WAVE", "it is WAV or AVI"),
}


@pytest.mark.fault(
    "Audio",
    "a file that is no audio, or audio of a format that is not known",
    "one line says what it is (web page, Git LFS pointer, M4A, text, nothing) and what to do",
)
@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_no_audio_is_refused_by_name(tmp_path: Path, name: str) -> None:
    data, says = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(data)
    line = refusal(path)
    assert re.search(says, line), line
