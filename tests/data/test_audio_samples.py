"""What is in an audio file: levels that are none, channels that cancel each other, rates that share no divisor."""

from __future__ import annotations

import json
import logging
import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lightning_audiorl.data import AudioError, ManifestError
from lightning_audiorl.data.audio import read_segment
from lightning_audiorl.data.audio.content_hash import ContentHashes
from lightning_audiorl.data.manifest import read_manifest
from lightning_audiorl.types import Segment
from tests.data import audio_files
from tests.data.audio_files import Kind

RATE_HZ = 16000


def write(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, samples, rate_hz, subtype=subtype)
    return path


def read(path: Path, rate_hz: int = RATE_HZ) -> torch.Tensor:
    return read_segment(Segment(str(path)), rate_hz)


@pytest.mark.fault(
    "Audio",
    "samples that are no sound: 1e30, NaN, infinity, floats at the scale of 16-bit integers",
    "refused by name; the scale is named where it is that",
)
@pytest.mark.parametrize(
    ("value", "subtype", "says"),
    [
        (1e30, "FLOAT", "as large as 1e\\+30"),
        (-1e30, "FLOAT", "as large as 1e\\+30"),
        (1e300, "DOUBLE", "infinite"),
        (float("nan"), "FLOAT", "NaN"),
        (float("-inf"), "FLOAT", "infinite"),
        (20000.0, "FLOAT", "divide them by 32768"),
    ],
)
def test_samples_that_are_no_sound(tmp_path: Path, value: float, subtype: str, says: str) -> None:
    wave = np.full((800, 2), 0.1)
    wave[400, 1] = value
    path = write(tmp_path / "a.wav", wave, subtype=subtype)
    with pytest.raises(AudioError, match=rf"a\.wav: holds .*{says}"):
        read(path)


def test_loud_floats_are_sound(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.full(800, 4.0))
    assert float(read(path).max()) == 4.0


@pytest.mark.fault(
    "Audio",
    "a file without samples in a row without duration",
    "the error names manifest, line, field and the file's path",
)
def test_a_file_without_samples_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "nothing.wav", np.zeros(0))
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": "nothing.wav", "text": "a"}))
    with pytest.raises(ManifestError, match=r"m\.jsonl, line 1.*audio_filepath.*nothing\.wav"):
        read_manifest(manifest)
    with pytest.raises(AudioError, match=r"nothing\.wav: holds no samples"):
        read(path)


@pytest.mark.fault(
    "Audio",
    "a folder, or a file that may not be read, in place of audio",
    "refused by name",
)
def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(AudioError, match=r"a\.wav: is a folder"):
        read(tmp_path / "a.wav")
    (tmp_path / "b.wav").symlink_to(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match=r"b\.wav: no such file"):
        read(tmp_path / "b.wav")


@pytest.mark.fault(
    "Audio",
    "stereo whose channels are of opposite phase (a swapped wire)",
    "one channel is heard, not silence, and the log says so once",
)
@pytest.mark.parametrize("gain", [-1.0, -0.9])
def test_channels_that_cancel_each_other(
    tmp_path: Path, gain: float, caplog: pytest.LogCaptureFixture
) -> None:
    mono = audio_files.signal(RATE_HZ)[:, 0]
    for name in ("first.wav", "second.wav"):
        write(tmp_path / name, np.stack([mono, gain * mono], axis=1))

    with caplog.at_level(logging.WARNING):
        waves = [read(tmp_path / name) for name in ("first.wav", "second.wav")]
    for wave in waves:
        assert np.abs(wave.numpy() - mono).max() < 1e-6
    told = [record for record in caplog.records if "opposite phase" in record.getMessage()]
    assert len(told) <= 1


def test_other_channels_are_averaged_as_ever(tmp_path: Path) -> None:
    mono = audio_files.signal(RATE_HZ)[:, 0]
    noise = np.random.default_rng(3).standard_normal(len(mono)).astype("float32") * 0.1
    for number, second in enumerate((np.zeros_like(mono), mono, 0.5 * mono, noise, -0.5 * mono)):
        channels = np.stack([mono, second], axis=1)
        path = write(tmp_path / f"{number}.wav", channels)
        assert torch.equal(read(path), torch.from_numpy(channels).mean(dim=1))
    silent = write(tmp_path / "silent.wav", np.zeros((800, 2)))
    assert not read(silent).any()


@pytest.mark.fault(
    "Audio",
    "a sampling rate that shares no divisor with the model's (22,254 Hz, 44,056 Hz, 12,345 Hz)",
    "resampled in a moment and little memory, in time and at its level",
)
@pytest.mark.parametrize("rate_hz", [22254, 44056, 12345, 11127, 15999, 47999])
def test_rates_without_a_common_divisor(tmp_path: Path, rate_hz: int) -> None:
    path = write(tmp_path / "a.wav", audio_files.signal(rate_hz, seconds=2.0), rate_hz)
    start_s = time.process_time()
    wave = read(path).numpy()
    seconds = time.process_time() - start_s

    assert len(wave) == 2 * RATE_HZ
    # It takes some milliseconds; torchaudio's filter between such rates takes seconds.
    assert seconds < 0.5
    # The tone alone: a tenth of the noise lies above what the lower rate holds.
    wanted = audio_files.signal(RATE_HZ, seconds=2.0)[:, 0]
    middle = slice(400, int(0.2 * len(wave)))
    assert np.abs(wave[middle] - wanted[middle]).max() < 0.05
    assert abs(np.square(wave).mean() / np.square(wanted).mean() - 1) < 0.02


@pytest.mark.parametrize("rate_hz", [8000, 11025, 22050, 24000, 32000, 44100, 48000])
def test_usual_rates_are_resampled_as_ever(tmp_path: Path, rate_hz: int) -> None:
    from torchaudio.functional import resample

    wave = audio_files.signal(rate_hz)
    path = write(tmp_path / "a.wav", wave, rate_hz)
    assert torch.equal(read(path), resample(torch.from_numpy(wave[:, 0]), rate_hz, RATE_HZ))


@pytest.mark.fault(
    "Audio",
    "an mp3 file without a header among the audio that is kept apart by content",
    "its hash is of all that it holds, its cuts are those that a row plays",
)
def test_content_hashes_are_of_the_whole_file(tmp_path: Path) -> None:
    frames, num_samples = audio_files.mp3_frames(audio_files.mp3(44100))
    path = tmp_path / "a.mp3"
    path.write_bytes(b"".join(frames[1:]))
    with ContentHashes(tmp_path / "hashes.sqlite") as hashes:
        assert hashes.file(str(path)).num_frames == num_samples * (len(frames) - 1)
        late = hashes.stretch(Segment(str(path), offset_s=2.5, duration_s=0.25))
    assert late is not None
    assert late.end_s == 2.75


def test_a_file_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    for seconds in (1.0, 2.0):
        frames, num_samples = audio_files.mp3_frames(audio_files.mp3(44100, seconds))
        path.write_bytes(b"".join(frames[1:]))
        assert len(read(path, 44100)) == num_samples * (len(frames) - 1)


def test_files_are_closed(tmp_path: Path) -> None:
    joined = tmp_path / "joined.mp3"
    joined.write_bytes(2 * audio_files.mp3(44100, 1.0))
    text = tmp_path / "text.snd"
    text.write_text("good morning, this is text\n" * 20)
    wav = audio_files.write(tmp_path, Kind("raw", "WAV", "PCM_16"))

    read(wav)
    num_open = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        read(joined)
        read(wav)
        with pytest.raises(AudioError):
            read(text)
    assert len(os.listdir("/proc/self/fd")) == num_open


def test_a_stretch_of_a_long_file_takes_little_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "long.wav", np.zeros(200 * RATE_HZ, dtype="int16"), subtype="PCM_16")
    tracemalloc.start()
    clip = read_segment(Segment(str(path), offset_s=199.0, duration_s=0.5), RATE_HZ)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(clip) == 8000
    assert peak < 2**20
