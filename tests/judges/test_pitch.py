from __future__ import annotations

import math

import pytest
import torch

from lightning_audiorl.judges import f0_spread_semitones, voiced_f0_hz
from lightning_audiorl.judges.pitch import _normalised_difference
from lightning_audiorl.ops.randomness import keyed_generator
from tests.helpers import assert_close
from tests.judges.fakes import RATE_HZ, tone


@pytest.mark.parametrize("f0_hz", [75.0, 110.0, 123.4, 220.0, 331.0])
def test_pitch_of_a_tone(f0_hz: float) -> None:
    found = voiced_f0_hz(tone(f0_hz), RATE_HZ)
    assert len(found) > 30
    assert found.min() > 0.99 * f0_hz
    assert found.max() < 1.01 * f0_hz
    assert f0_spread_semitones(found) < 0.1


def test_spread_of_a_glide() -> None:
    """A glide of 6 semitones in equal steps has deviation 6 / sqrt(12); the ends lose half a window each."""
    found = f0_spread_semitones(voiced_f0_hz(tone(150.0, 2.0, glide_semitones=6.0), RATE_HZ))
    assert found == pytest.approx(6 / math.sqrt(12), rel=0.05)
    assert f0_spread_semitones(torch.tensor([100.0, 200.0])) == pytest.approx(6.0)


def test_only_voiced_frames_count() -> None:
    noise = 0.3 * torch.randn(RATE_HZ // 2, generator=keyed_generator("pitch"))
    found = voiced_f0_hz(torch.cat([torch.zeros(2000), tone(140.0), noise]), RATE_HZ)
    alone = voiced_f0_hz(tone(140.0), RATE_HZ)
    assert abs(len(found) - len(alone)) <= 8
    assert found.median() == pytest.approx(140.0, rel=0.01)
    assert len(voiced_f0_hz(noise, RATE_HZ)) == 0


def click_at_the_end() -> torch.Tensor:
    waveform = torch.zeros(8005)
    waveform[-1] = 0.5
    return waveform


@pytest.mark.parametrize(
    "waveform", [torch.zeros(0), torch.zeros(8000), torch.ones(100), click_at_the_end()]
)
def test_nothing_voiced(waveform: torch.Tensor) -> None:
    assert len(voiced_f0_hz(waveform, RATE_HZ)) == 0
    assert f0_spread_semitones(voiced_f0_hz(waveform, RATE_HZ)) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_samples_that_are_not_finite_are_refused(bad: float) -> None:
    waveform = tone(140.0)
    waveform[2000] = bad
    with pytest.raises(ValueError, match="NaN or infinite samples"):
        voiced_f0_hz(waveform, RATE_HZ)


def test_difference_against_a_naive_loop() -> None:
    frames = torch.randn(2, 31, generator=keyed_generator("yin"), dtype=torch.float64)
    window, num_lags = 20, 11
    expected = torch.ones(2, num_lags + 1, dtype=torch.float64)
    for n in range(2):
        difference = [
            sum(float(frames[n, j] - frames[n, j + lag]) ** 2 for j in range(window))
            for lag in range(num_lags + 1)
        ]
        for lag in range(1, num_lags + 1):
            expected[n, lag] = difference[lag] * lag / sum(difference[1 : lag + 1])
    assert_close(_normalised_difference(frames, window, num_lags), expected, "float64")
