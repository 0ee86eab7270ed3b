"""The tiny codec: quantiser, lengths, rows apart from their batch, folders, and sound that survives."""

from __future__ import annotations

import json
from math import pi
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_audiorl.codecs import CodecError, TinyCodec, TinyCodecConfig
from lightning_audiorl.codecs.tiny import codes_to_digits, digits_to_codes, quantise
from tests.helpers import assert_close

SMALL = TinyCodecConfig(width=16, layers=1, num_mels=32, n_fft=512, iterations=4)
LEVELS = torch.tensor([8.0, 5.0, 3.0])


def tone(frequency_hz: float, num_samples: int, rate_hz: int = 16000) -> Tensor:
    return 0.3 * torch.sin(2 * pi * frequency_hz * torch.arange(num_samples) / rate_hz)


def loudest_hz(wave: Tensor, rate_hz: int = 16000) -> float:
    return float(torch.fft.rfft(wave).abs().argmax()) * rate_hz / len(wave)


def clips() -> tuple[Tensor, Tensor]:
    """1 s of noise, 700 samples of a tone, nothing, 0.5 s of a tone; NaN behind their ends."""
    num_samples = torch.tensor([16000, 700, 0, 8000])
    waveform = torch.full((4, 16000), torch.nan)
    waveform[0] = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(1))
    waveform[1, :700] = tone(440, 700)
    waveform[3, :8000] = tone(200, 8000)
    return waveform, num_samples


def test_quantiser_by_hand() -> None:
    # sigmoid(0) is a half: 3.5 of 0..7 rounds to 4 (to even), 2 of 0..4, 1 of 0..2; far out are the first and the last
    assert quantise(torch.zeros(3), LEVELS).tolist() == [4, 2, 1]
    assert quantise(torch.full((3,), -9.0), LEVELS).tolist() == [0, 0, 0]
    assert quantise(torch.full((3,), 9.0), LEVELS).tolist() == [7, 4, 2]


def test_quantiser_passes_gradients_straight_through() -> None:
    hidden = torch.tensor([0.3, -1.0, 2.0], requires_grad=True)
    quantise(hidden, LEVELS).sum().backward()
    share = torch.sigmoid(hidden.detach())
    assert hidden.grad is not None
    assert_close(hidden.grad, (LEVELS - 1) * share * (1 - share))


def test_codes_are_digits() -> None:
    assert digits_to_codes(torch.tensor([1.0, 2.0]), torch.tensor([8.0, 8.0])) == 17
    codes = torch.arange(8 * 5 * 3)
    digits = codes_to_digits(codes, LEVELS)
    assert digits.amax(0).tolist() == [7, 4, 2]
    assert len(digits.unique(dim=0)) == 120
    assert_close(digits_to_codes(digits, LEVELS), codes, "exact")


@pytest.mark.parametrize(
    ("frame_rate_hz", "expected"),
    [(12.5, [13, 1, 0, 7]), (25.0, [25, 2, 0, 13]), (50.0, [50, 3, 0, 25])],
)
def test_lengths(frame_rate_hz: float, expected: list[int]) -> None:
    codec = TinyCodec(
        TinyCodecConfig(frame_rate_hz=frame_rate_hz, width=16, n_fft=512, iterations=1)
    )
    codes, lengths = codec.encode(*clips())
    assert lengths.tolist() == expected
    assert codes.shape == (4, expected[0])
    waveform, num_samples = codec.decode(codes, lengths)
    assert num_samples.tolist() == [length * 16000 / frame_rate_hz for length in expected]
    assert waveform.isfinite().all()
    assert waveform[1, : num_samples[1]].any()


def test_a_row_alone_is_the_row_in_a_batch() -> None:
    codec, (waveform, num_samples) = TinyCodec(SMALL), clips()
    codes, lengths = codec.encode(waveform, num_samples)
    generator = torch.Generator().manual_seed(2)
    spoken = torch.randint(codec.cardinality, codes.shape, generator=generator)
    speech, num_spoken = codec.decode(spoken, lengths)
    for b in (0, 1, 3):
        alone, length = codec.encode(waveform[b : b + 1, : num_samples[b]], num_samples[b : b + 1])
        assert length == lengths[b]
        assert_close(alone[0], codes[b, :length], "exact")
        wave, _ = codec.decode(spoken[b : b + 1, :length], length)
        assert_close(wave[0], speech[b, : num_spoken[b]], "exact")
        assert wave.abs().max() > 0


def test_no_global_randomness() -> None:
    state = torch.get_rng_state()
    codec = TinyCodec(SMALL)
    first = codec.decode(torch.full((1, 5), 7), torch.tensor([5]))[0]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert_close(
        TinyCodec(SMALL).decode(torch.full((1, 5), 7), torch.tensor([5]))[0], first, "exact"
    )
    other = TinyCodec(
        TinyCodecConfig(width=16, layers=1, num_mels=32, n_fft=512, iterations=4, seed=1)
    )
    assert not torch.equal(other.decode(torch.full((1, 5), 7), torch.tensor([5]))[0], first)
    torch.set_rng_state(state)


@pytest.mark.parametrize("frequency_hz", [300.0, 1000.0, 2500.0])
def test_a_tone_survives_the_mel_spectrogram(frequency_hz: float) -> None:
    codec = TinyCodec(TinyCodecConfig(width=16))
    with torch.no_grad():
        mel = codec.mels(tone(frequency_hz, 12800)[None])
        again = codec.waveforms_of(mel)
    assert mel.shape == (1, 64, 80)
    assert again.shape == (1, 12800)
    width_hz = float((codec.filters[:, mel[0, :, 40].argmax()] > 0).sum()) * 16000 / 512
    assert abs(loudest_hz(again[0]) - frequency_hz) <= width_hz
    power = again[0, 2000:-2000].square().mean() / tone(frequency_hz, 8800).square().mean()
    assert 0.25 < power < 4


def test_sound_stays_where_it_was() -> None:
    codec = TinyCodec(TinyCodecConfig(width=16))
    waveform = torch.zeros(1, 16000)
    waveform[0, 8000:9600] = tone(500, 1600)
    with torch.no_grad():
        again = codec.waveforms_of(codec.mels(waveform))[0]
    centre = float((again.square() * torch.arange(16000)).sum() / again.square().sum())
    assert abs(centre - 8800) < 160


def test_a_folder_gives_the_same_codec(tmp_path: Path) -> None:
    codec = TinyCodec(
        TinyCodecConfig(levels=(4, 3), width=16, layers=1, n_fft=512, iterations=2, seed=5)
    )
    codec.save(str(tmp_path / "codec"))
    loaded = TinyCodec(str(tmp_path / "codec"))
    assert loaded.config == codec.config
    assert (loaded.cardinality, loaded.training) == (12, False)
    codes, lengths = codec.encode(*clips())
    assert_close(loaded.encode(*clips())[0], codes, "exact")
    assert_close(loaded.decode(codes, lengths)[0], codec.decode(codes, lengths)[0], "exact")


def test_bad_folders_and_sizes(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"has no config.json; give a folder that CodecTraining wrote"
    ):
        TinyCodec(str(tmp_path))
    TinyCodec(SMALL).save(str(tmp_path))
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "codec": "other"}))
    with pytest.raises(CodecError, match="that of another model"):
        TinyCodec(str(tmp_path))
    with pytest.raises(CodecError, match=r"want a frame_rate_hz of 50, 25 or 12.5 .* got 40.0"):
        TinyCodec(TinyCodecConfig(frame_rate_hz=40.0))
