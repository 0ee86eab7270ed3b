"""What sounds like a pitch to an estimator and is none: silence, constants, pauses, clicks, noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from lightning_audiorl.judges import f0_spread_semitones, voiced_f0_hz
from lightning_audiorl.metrics import SpeechEvaluation
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.rewards import Diversity
from tests.judges.fakes import RATE_HZ, said, tone

RATES_HZ = (8000, 16000, 22050, 24000, 48000)


def harmonics(
    f0_hz: float, rate_hz: int, duration_s: float, numbers: Sequence[int] = range(1, 7)
) -> Tensor:
    """Harmonics of a pitch, each weaker than the one below."""
    time_s = torch.arange(round(rate_hz * duration_s), dtype=torch.float64) / rate_hz
    waves = []
    for number in numbers:
        waves.append((2 * math.pi * f0_hz * number * time_s + 0.7 * number).sin() / number)
    return (0.2 * torch.stack(waves).sum(0)).float()


def pink(num_samples: int) -> Tensor:
    spectrum = torch.fft.rfft(torch.randn(num_samples, generator=keyed_generator("pink")))
    number = torch.arange(len(spectrum)).clamp(min=1)
    noise = torch.fft.irfft(spectrum / number.sqrt(), num_samples)
    return 0.1 * noise / noise.std()


def voiceless(rate_hz: int) -> dict[str, Tensor]:
    num = 2 * rate_hz
    white = torch.randn(num, generator=keyed_generator("white"))
    clicks = torch.zeros(num)
    clicks[rate_hz // 3] = 0.9
    clicks[rate_hz] = -0.5
    step = torch.zeros(num)
    step[rate_hz // 2 :] = 0.5
    return {
        "silence": torch.zeros(num),
        "a constant": torch.full((num,), 0.5),
        "a step": step,
        "a ramp": torch.linspace(0.0, 0.5, num),
        "clicks": clicks,
        "clicks on a constant": clicks + 0.1,
        "white noise": 0.1 * white,
        "pink noise": pink(num),
        "hiss at -80 dBFS": 1e-4 * white,
        "hum at -90 dBFS": 1e-4 * harmonics(100.0, rate_hz, 2.0),
    }


@pytest.mark.fault(
    "Speech",
    "silence, a constant, clicks or noise where a pitch is looked for",
    "not one frame of it is voiced, at any rate",
)
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_what_has_no_pitch_has_no_voiced_frame(rate_hz: int) -> None:
    found = {name: len(voiced_f0_hz(wave, rate_hz)) for name, wave in voiceless(rate_hz).items()}
    assert not any(found.values()), found


def with_pauses(rate_hz: int, fade_s: float, offset: float) -> Tensor:
    """0.2 s of a voice at 120 Hz and 0.05 s of zeros, five times."""
    syllable = harmonics(120.0, rate_hz, 0.2)
    num_faded = round(fade_s * rate_hz)
    if num_faded:
        rise = torch.linspace(0.0, 1.0, num_faded)
        syllable[:num_faded] *= rise
        syllable[-num_faded:] *= rise.flip(0)
    return torch.cat([syllable, torch.zeros(rate_hz // 20)]).repeat(5) + offset


@pytest.mark.fault(
    "Speech",
    "a monotone voice with pauses of zeros, fades or an offset",
    "its pitch is its own in every voiced frame, and its melody is 0",
)
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_pauses_are_no_melody(rate_hz: int) -> None:
    for fade_s in (0.0, 0.01):
        for offset in (0.0, 0.02, 0.3):
            found = voiced_f0_hz(with_pauses(rate_hz, fade_s, offset), rate_hz)
            assert len(found) > 60, "0.2 s of each 0.25 s are voiced"
            assert (found - 120).abs().max() < 1.5, (fade_s, offset)
            assert f0_spread_semitones(found) < 0.05


@pytest.mark.fault(
    "Speech",
    "a monotone voice with pauses of zeros, rewarded for its melody",
    "its melody is worth nothing",
)
def test_pauses_are_not_rewarded_as_melody() -> None:
    reward = Diversity(distance_weight=0.0, melody_weight=1.0)
    for offset in (0.0, 0.02):
        (value,) = reward.score([said(waveform=with_pauses(RATE_HZ, 0.01, offset))])
        assert value < 0.01


@pytest.mark.fault(
    "Speech",
    "pitches at the ends of the range searched, without their fundamental, at several rates",
    "found within 1.5 percent",
)
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_pitch_over_its_whole_range(rate_hz: int) -> None:
    for f0_hz in (60.0, 110.0, 220.0, 400.0):
        for numbers in ((1,), range(1, 7), (2, 3, 4, 5), (3, 4, 5)):
            found = voiced_f0_hz(harmonics(f0_hz, rate_hz, 0.3, numbers), rate_hz)
            assert len(found) > 20, (f0_hz, numbers)
            assert (found / f0_hz - 1).abs().max() < 0.015, (f0_hz, numbers)


def mostly_noise(voiced_s: float) -> Tensor:
    """4 s of noise with so much voice in it."""
    noise = 0.1 * torch.randn(4 * RATE_HZ, generator=keyed_generator("mostly noise"))
    num = round(voiced_s * RATE_HZ)
    noise[:num] = tone(150.0, voiced_s)
    return noise


@pytest.mark.fault(
    "Speech",
    "F0 of samples of which hardly a frame is voiced",
    "no F0 at all, and the share of voiced frames beside it",
)
def test_f0_says_on_how_much_it_stands() -> None:
    def measured(voiced_s: float) -> dict[str, float]:
        metric = SpeechEvaluation().new()
        metric.update([said(waveform=mostly_noise(voiced_s))])
        return {name: float(value) for name, value in metric.compute().items()}

    few = measured(0.15)
    assert math.isnan(few["f0_mean_hz"])
    assert math.isnan(few["f0_std_semitones"])
    assert 0.0 < few["voiced_share"] < 0.05

    many = measured(1.0)
    assert many["voiced_share"] == pytest.approx(0.25, abs=0.02)
    assert many["f0_mean_hz"] == pytest.approx(150.0, rel=0.01)
    assert many["f0_std_semitones"] < 0.1


@pytest.mark.fault(
    "Speech",
    "a melody that stands on a handful of frames",
    "it is worth nothing",
)
def test_melody_of_a_few_frames_is_worth_nothing() -> None:
    wave = mostly_noise(0.0)
    wave[:640] = tone(100.0, 0.08)
    wave[8000:8640] = tone(300.0, 0.08)
    assert 2 <= len(voiced_f0_hz(wave, RATE_HZ)) < 20
    assert Diversity(distance_weight=0.0, melody_weight=1.0).score([said(waveform=wave)]) == [0.0]


@pytest.mark.fault(
    "Speech",
    "a share of voiced frames that falls below what a pitch needs",
    "a dash in the table, and no alert of the drift watch",
)
def test_no_pitch_is_a_dash_and_no_drift() -> None:
    from lightning_audiorl.callbacks.hacking import drift_alerts
    from lightning_audiorl.callbacks.metric_table import metric_table

    def measured(voiced_s: float, f0_hz: float) -> dict[str, float]:
        metric = SpeechEvaluation().new()
        wave = mostly_noise(0.0)
        num = round(voiced_s * RATE_HZ)
        wave[:num] = tone(f0_hz, voiced_s)
        metric.update([said(waveform=wave)])
        return {name: float(value) for name, value in metric.compute().items()}

    before = measured(2.0, 120.0)
    after = measured(0.15, 160.0)
    lines = metric_table({"digits": before}, {"digits": after}).splitlines()
    place = lines[0].index("F0 Hz") + len("F0 Hz")
    shown = [line[:place].split()[-1] for line in lines[2:]]
    assert shown[0] == "120"
    assert shown[1:] == ["-", "-"]

    history = {"val/digits/f0_mean_hz": [before["f0_mean_hz"], after["f0_mean_hz"]]}
    assert drift_alerts(history) == []
