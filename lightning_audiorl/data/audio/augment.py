"""Changes to training audio: speed, noise, gain. Keyed by (seed, step, row id), so a retry or resume repeats them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torchaudio.transforms import Resample

from lightning_audiorl.checks import check_number
from lightning_audiorl.data.audio.nonspeech import rms
from lightning_audiorl.data.audio.own_sounds import (
    at_snr,
    convolved,
    noise_from,
    room_from,
    sounds_of,
)
from lightning_audiorl.data.draws import between
from lightning_audiorl.ops.randomness import keyed_generator, keyed_uniform

#: Speed factors are multiples of 1 / 50, so that few resamplers are made and all are short.
_SPEED_STEPS = 50


@lru_cache(maxsize=128)
def _resampler(numerator: int, denominator: int) -> Resample:
    return Resample(numerator, denominator)


def change_speed(wave: Tensor, factor: float) -> Tensor:
    """Play [num_samples] ``factor`` times as fast (pitch moves along); the factor is rounded to 0.02.

    Example:
        >>> change_speed(torch.zeros(1000), 0.8).shape
        torch.Size([1250])
    """
    numerator = round(factor * _SPEED_STEPS)
    if numerator == _SPEED_STEPS:
        return wave
    faster: Tensor = _resampler(numerator, _SPEED_STEPS)(wave)
    return faster


def add_noise(wave: Tensor, snr_db: float, generator: torch.Generator) -> Tensor:
    """[num_samples] plus white noise, ``snr_db`` below the clip's mean power. A silent clip stays silent.

    Example:
        >>> noisy = add_noise(torch.ones(100_000), snr_db=20.0, generator=torch.Generator().manual_seed(0))
        >>> round(float((noisy - 1).square().mean()), 2)
        0.01
    """
    noise = torch.randn(wave.shape, generator=generator)
    level = rms(wave) * 10 ** (-snr_db / 20)
    return wave + level * noise


def change_gain(wave: Tensor, gain_db: float) -> Tensor:
    """[num_samples] scaled by ``gain_db``, clipped to [-1, 1].

    Example:
        >>> change_gain(torch.tensor([0.01, -0.5]), gain_db=20.0)
        tensor([ 0.1000, -1.0000])
    """
    scaled = wave * 10 ** (gain_db / 20)
    return scaled.clamp(-1.0, 1.0)


@dataclass(frozen=True)
class Augment:
    """What is done to every training clip; each range is drawn from uniformly.

    Args:
        speed: range of speed factors; (1, 1) is off.
        noise_snr_db: range of signal-to-noise ratios in dB.
        noise_probability: share of clips that get noise; 0 is off.
        gain_db: range of gains in dB; (0, 0) is off.
        noise_folder: recordings that the noise is drawn from, such as MUSAN's; None is white noise.
        room_folder: impulse responses of rooms, such as those of RIRS_NOISES; None is off.
        room_probability: share of clips that are put into a room of ``room_folder``.

    Raises:
        ValueError: a range from high to low, or a speed or probability out of bounds.

    Example:
        >>> slower = Augment(speed=(0.8, 0.8), noise_probability=0.0, gain_db=(0.0, 0.0))
        >>> slower.apply(torch.zeros(1000), seed=0, step=1, row_id="a").shape
        torch.Size([1250])
    """

    speed: tuple[float, float] = (0.9, 1.1)
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    noise_probability: float = 0.5
    gain_db: tuple[float, float] = (-6.0, 6.0)
    noise_folder: str | None = None
    room_folder: str | None = None
    room_probability: float = 0.5

    def __post_init__(self) -> None:
        for name in ("speed", "noise_snr_db", "gain_db"):
            low, high = getattr(self, name)
            check_number(f"Augment.{name}", low)
            check_number(f"Augment.{name}", high)
            if low > high:
                raise ValueError(f"Augment.{name}: expected (low, high), got ({low}, {high})")

        slowest, fastest = self.speed
        is_speed = slowest >= 0.5 and fastest <= 2
        is_probability = 0 <= self.noise_probability <= 1
        if not is_speed or not is_probability:
            raise ValueError(
                f"Augment: want speed within 0.5 to 2 and noise_probability within 0 to 1, got speed={self.speed}, "
                f"noise_probability={self.noise_probability}"
            )
        check_number("Augment.room_probability", self.room_probability, at_least=0, at_most=1)
        # A folder that is not there is said before the first batch.
        for folder in (self.noise_folder, self.room_folder):
            if folder is not None:
                sounds_of(folder)

    def apply(
        self, wave: Tensor, seed: int, step: int, row_id: str, sample_rate_hz: int = 16000
    ) -> Tensor:
        """The clip [num_samples] as this row sounds at this step; speed changes its length."""
        key = ("augment", seed, step, row_id)
        u_speed, u_noise, u_snr, u_gain = keyed_uniform(4, *key).tolist()

        wave = change_speed(wave, between(self.speed, u_speed))
        if self.room_folder is not None:
            (u_room,) = keyed_uniform(1, *key, "room").tolist()
            if u_room < self.room_probability:
                wave = convolved(wave, room_from(self.room_folder, sample_rate_hz, key))

        if u_noise < self.noise_probability:
            snr_db = between(self.noise_snr_db, u_snr)
            if self.noise_folder is None:
                wave = add_noise(wave, snr_db, keyed_generator(*key, "noise"))
            else:
                noise = noise_from(self.noise_folder, len(wave), sample_rate_hz, key)
                wave = at_snr(wave, noise, snr_db)
        return change_gain(wave, between(self.gain_db, u_gain))
