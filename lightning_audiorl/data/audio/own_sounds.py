"""Noise and rooms from folders of recordings, such as those of MUSAN and RIRS_NOISES: drawn by key."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchaudio.functional import fftconvolve

from lightning_audiorl.data.audio.channels import to_mono
from lightning_audiorl.data.audio.nonspeech import rms
from lightning_audiorl.data.audio.resampling import resample
from lightning_audiorl.data.draws import pick
from lightning_audiorl.data.sound import SoundReader
from lightning_audiorl.data.sound.foreign import AUDIO_ENDINGS
from lightning_audiorl.ops.randomness import keyed_uniform

Key = tuple[int | str, ...]

#: Recordings tried before a folder is given up for its silence.
_MOST_TRIES = 20
#: Of a room no more is used than this.
_MOST_ROOM_S = 10.0


@lru_cache(maxsize=64)
def sounds_of(folder: str) -> tuple[str, ...]:
    """The audio files below a folder, by their names within it: the same draws wherever the folder lies.

    Raises:
        ValueError: there is no such folder, or no audio in it.
    """
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; name one with recordings")
    names = [
        path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in AUDIO_ENDINGS
    ]
    if not names:
        raise ValueError(f"{root}: holds no audio file; name a folder with recordings")
    return tuple(str(root / name) for name in sorted(names))


def noise_from(folder: str, num_samples: int, rate_hz: int, key: Key) -> Tensor:
    """A stretch of one recording of a folder; a recording that is shorter is repeated.

    Args:
        folder: of the recordings.
        num_samples: how much is wanted.
        rate_hz: at this rate.
        key: of the draw.

    Returns:
        [num_samples] float32.

    Raises:
        ValueError: no such folder, no audio in it, or nothing but silence was drawn.
        AudioError: a recording that cannot be read.
    """
    files = sounds_of(folder)
    for attempt in range(_MOST_TRIES):
        u_file, u_start = keyed_uniform(2, "noise_from", *key, attempt).tolist()
        wave = _stretch(pick(files, u_file), num_samples, rate_hz, u_start)
        # Digital silence stands in many recordings, and no gain makes noise of it.
        if float(rms(wave)) > 0:
            return wave
    raise ValueError(f"{folder}: {_MOST_TRIES} stretches were drawn, and all are digital silence")


def _stretch(path: str, num_samples: int, rate_hz: int, u_start: float) -> Tensor:
    """[num_samples] of a file, from a place on that is drawn."""
    with SoundReader(path) as sound:
        wanted = -(-num_samples * sound.rate_hz // rate_hz)
        start = int(u_start * max(1, sound.num_frames - wanted))
        frames = torch.from_numpy(sound.read(start, wanted))
        file_rate_hz = sound.rate_hz
    wave = resample(to_mono(frames, path), file_rate_hz, rate_hz)
    if len(wave) == 0:
        return torch.zeros(num_samples)
    num_copies = -(-num_samples // len(wave))
    return wave.repeat(num_copies)[:num_samples]


def room_from(folder: str, rate_hz: int, key: Key) -> Tensor:
    """The response of one room of a folder, from its direct sound on, with energy (sum of squares) 1.

    The direct sound is the largest sample: what lies before it is left out, so that speech keeps its place. Of a
    recording of several microphones the first is taken.

    Args:
        folder: of impulse responses.
        rate_hz: at this rate.
        key: of the draw.

    Returns:
        [num_samples] float32, 10 s at most.

    Raises:
        ValueError: no such folder, no audio in it, or a response that is silent.
        AudioError: a recording that cannot be read.
    """
    (u_file,) = keyed_uniform(1, "room_from", *key).tolist()
    path = pick(sounds_of(folder), u_file)
    with SoundReader(path) as sound:
        frames = torch.from_numpy(sound.read(0, None))
        file_rate_hz = sound.rate_hz
    response = resample(frames[:, 0].contiguous(), file_rate_hz, rate_hz)
    if len(response) == 0 or float(rms(response)) == 0:
        raise ValueError(
            f"{path}: is silent, so it is the response of no room; remove it from {folder}"
        )

    direct = int(response.abs().argmax())
    response = response[direct : direct + round(_MOST_ROOM_S * rate_hz)]
    return response / response.norm()


def convolved(wave: Tensor, response: Tensor) -> Tensor:
    """[num_samples] in a room; what goes on behind the clip's end is cut."""
    # Other lengths than powers of two can make the FFT ten times slower.
    num_samples = len(wave) + len(response) - 1
    fast_length = 2 ** (num_samples - 1).bit_length()
    padded = pad(response, (0, fast_length - num_samples))
    reverberant: Tensor = fftconvolve(wave, padded)
    return reverberant[: len(wave)]


def at_snr(wave: Tensor, noise: Tensor, snr_db: float) -> Tensor:
    """A clip with a noise ``snr_db`` below its mean power (pauses count). A silent clip stays silent.

    Example:
        >>> float(at_snr(torch.ones(4), torch.full((4,), 0.5), snr_db=20.0)[0])
        1.10...
    """
    wanted_rms = rms(wave) * 10 ** (-snr_db / 20)
    gain = wanted_rms / rms(noise).clamp(min=1e-8)
    return wave + noise * gain
