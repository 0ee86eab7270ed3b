from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lightning_audiorl.data import AudioCache, AudioError, read_audio
from lightning_audiorl.types import Segment, Utterance
from tests.data.fakes import write_tone
from tests.helpers import assert_close

RATE_HZ = 16000


def row(*segments: Segment) -> Utterance:
    return Utterance("row7", segments, "", 0.0)


def peak_hz(wave: torch.Tensor) -> float:
    return float(torch.fft.rfft(wave).abs().argmax()) * RATE_HZ / len(wave)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate_hz", [8000, 16000, 44100])
def test_formats_and_rates_come_out_alike(tmp_path: Path, suffix: str, rate_hz: int) -> None:
    path = write_tone(tmp_path / f"tone.{suffix}", 1.0, rate_hz, hz=500.0)
    wave = read_audio(row(Segment(str(path))), RATE_HZ)
    assert wave.dtype == torch.float32
    assert wave.ndim == 1
    assert abs(len(wave) / RATE_HZ - 1.0) < 0.15 if suffix == "mp3" else len(wave) == RATE_HZ
    assert abs(peak_hz(wave) - 500.0) < 2.0
    assert abs(float(wave.abs().max()) - 0.5) < 0.06


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "stereo.wav", channels=2)
    wave = read_audio(row(Segment(str(path))), RATE_HZ)
    assert abs(float(wave.abs().max()) - 0.25) < 1e-3


def test_offset_and_duration_cut_the_stretch(tmp_path: Path) -> None:
    ramp = np.arange(800, dtype="float32") / 1000
    soundfile.write(tmp_path / "ramp.wav", ramp, 8000, subtype="FLOAT")
    wave = read_audio(
        row(Segment(str(tmp_path / "ramp.wav"), duration_s=0.05, offset_s=0.025)), 8000
    )
    assert_close(wave, torch.from_numpy(ramp[200:600]), "exact")


def test_segments_are_joined_with_their_gaps(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "ones.wav", np.full(80, 0.5), 8000, subtype="FLOAT")
    ones = str(tmp_path / "ones.wav")
    wave = read_audio(
        row(
            Segment(ones, gap_s=0.01), Segment(ones, gap_s=0.02), Segment("synthetic:silence", 0.01)
        ),
        8000,
    )
    expected = [0.0] * 80 + [0.5] * 80 + [0.0] * 160 + [0.5] * 80 + [0.0] * 80
    assert_close(wave, expected, "exact")


def bad_file(folder: Path, kind: str) -> Segment:
    path = folder / f"{kind}.wav"
    if kind == "unreadable":
        path.write_bytes(b"RIFF but not really")
    elif kind == "empty":
        soundfile.write(path, [], 8000)
    elif kind != "missing":
        value = {"nan": np.nan, "inf": np.inf}.get(kind, 0.1)
        soundfile.write(path, np.array([0.1] * 4000 + [value]), 8000, subtype="FLOAT")
    offset_s = 3.0 if kind == "late" else 0.0
    return Segment(str(path), {"long": 2.0, "short": 1e-6}.get(kind), offset_s)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "no such file"),
        ("unreadable", "not readable"),
        ("empty", "no samples"),
        ("nan", "NaN or infinite"),
        ("inf", "NaN or infinite"),
        ("late", "outside the file"),
        ("long", "has only 0.500 s"),
        ("short", "less than one sample"),
    ],
)
@pytest.mark.parametrize("cache", [None, AudioCache()])
def test_bad_audio_names_row_and_file(
    tmp_path: Path, kind: str, says: str, cache: AudioCache | None
) -> None:
    segment = bad_file(tmp_path, kind)
    with pytest.raises(AudioError) as caught:
        read_audio(row(segment), RATE_HZ, cache)
    assert "row 'row7'" in str(caught.value)
    assert segment.audio_filepath in str(caught.value)
    assert says in str(caught.value)


def test_bad_addresses_and_rows_without_audio(tmp_path: Path) -> None:
    for segments in [(Segment("synthetic:white"),), (Segment("synthetic:speech", 1.0),), ()]:
        with pytest.raises(AudioError, match="row 'row7'"):
            read_audio(row(*segments), RATE_HZ)


def test_slightly_too_long_durations_read_to_the_end(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "a.wav", 0.5)
    assert len(read_audio(row(Segment(str(path), 0.6)), RATE_HZ)) == 8000


def test_the_cache_answers_without_the_file_and_forgets_the_oldest(tmp_path: Path) -> None:
    paths = [write_tone(tmp_path / f"{n}.wav", 0.1, hz=300.0 + n) for n in range(3)]
    cache = AudioCache(max_bytes=2 * 1600 * 4, max_clip_s=1.0)
    waves = [read_audio(row(Segment(str(path))), RATE_HZ, cache) for path in paths]
    assert len(cache) == 2
    assert cache.num_bytes == 2 * 1600 * 4
    waves[2].zero_()
    for path in paths:
        path.unlink()
    assert float(read_audio(row(Segment(str(paths[2]))), RATE_HZ, cache).abs().max()) > 0.4
    with pytest.raises(AudioError, match="no such file"):
        read_audio(row(Segment(str(paths[0]))), RATE_HZ, cache)


def test_long_clips_are_not_cached(tmp_path: Path) -> None:
    cache = AudioCache(max_clip_s=0.2)
    read_audio(row(Segment(str(write_tone(tmp_path / "a.wav", 0.3)))), RATE_HZ, cache)
    assert len(cache) == 0
