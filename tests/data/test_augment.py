from __future__ import annotations

import math

import pytest
import torch

from lightning_audiorl.data import Augment
from lightning_audiorl.data.audio.augment import add_noise, change_gain, change_speed
from lightning_audiorl.ops.randomness import keyed_generator
from tests.helpers import assert_close


def tone(seconds: float = 1.0, hz: float = 400.0) -> torch.Tensor:
    return 0.1 * torch.sin(2 * math.pi * hz * torch.arange(int(seconds * 16000)) / 16000)


def test_speed_shortens_and_raises_the_pitch() -> None:
    fast = change_speed(tone(), 1.25)  # rounded to 1.24
    assert abs(len(fast) - 16000 / 1.24) <= 1
    assert abs(float(torch.fft.rfft(fast).abs().argmax()) * 16000 / len(fast) - 400 * 1.24) < 2
    assert_close(change_speed(tone(), 1.004), tone(), "exact")


def test_noise_has_the_asked_level() -> None:
    noisy = add_noise(tone(), 10.0, keyed_generator("n"))
    snr_db = 10 * math.log10(float(tone().square().mean() / (noisy - tone()).square().mean()))
    assert abs(snr_db - 10) < 0.3
    assert_close(add_noise(torch.zeros(5), 10.0, keyed_generator("n")), torch.zeros(5), "exact")


def test_gain_scales_and_clips() -> None:
    assert_close(change_gain(torch.tensor([0.05, -0.5]), 20.0), [0.5, -1.0])


def test_draws_are_keyed_by_seed_step_and_row() -> None:
    augment = Augment()
    first = augment.apply(tone(), 0, 1, "a")
    assert_close(augment.apply(tone(), 0, 1, "a"), first, "exact")
    for other in [(1, 1, "a"), (0, 2, "a"), (0, 1, "b")]:
        changed = augment.apply(tone(), *other)
        assert changed.shape != first.shape or not torch.equal(changed, first)


def test_ranges_are_kept_and_noise_comes_as_often_as_asked() -> None:
    augment = Augment(speed=(0.9, 1.1), noise_probability=0.3, gain_db=(0, 0))
    clips = [augment.apply(tone(0.05), 0, step, "a") for step in range(300)]
    assert all(727 <= len(clip) <= 890 for clip in clips)
    assert len({len(clip) for clip in clips}) == 11
    silent = [
        Augment((1, 1), (0, 0), 0.3, (0, 0)).apply(tone(0.05), 0, step, "a") for step in range(300)
    ]
    noisy = sum(not torch.equal(clip, tone(0.05)) for clip in silent)
    assert 60 < noisy < 120


def test_everything_off_changes_nothing() -> None:
    off = Augment(speed=(1, 1), noise_probability=0.0, gain_db=(0, 0))
    assert_close(off.apply(tone(), 0, 0, "a"), tone(), "exact")


@pytest.mark.parametrize(
    "settings", [{"speed": (1.1, 0.9)}, {"speed": (0.1, 1)}, {"noise_probability": 1.5}]
)
def test_bad_settings_are_named(settings: dict) -> None:
    with pytest.raises(ValueError, match=f"Augment.*{next(iter(settings))}"):
        Augment(**settings)
