"""What the networks of our own judges share: features, masks, and a folder of config.json and model.safetensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchaudio.functional import create_dct
from torchaudio.transforms import MelSpectrogram

from lightning_audiorl.judges.base import JudgeError
from lightning_audiorl.ops.randomness import key_to_seed
from lightning_audiorl.weights.families import first_line, what_it_is
from lightning_audiorl.weights.own import load_own, read_own_config, save_own
from lightning_audiorl.weights.tensors import WeightsError

#: Log-mel values are floored this far below the clip's loudest (natural log of power; about 43 dB).
_FLOOR = 10.0


def frame_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """[B] lengths -> [B, num_frames, 1] bool, True up to each length.

    Example:
        >>> frame_mask(torch.tensor([2, 1]), 3)[..., 0]
        tensor([[ True,  True, False],
                [ True, False, False]])
    """
    places = torch.arange(num_frames, device=lengths.device)
    return (places < lengths[:, None])[..., None]


class Frames(nn.Module):
    """Log-mel or MFCC frames; a clip's frames depend on nothing but the clip, whatever it is padded with.

    Args:
        sample_rate_hz: of the audio.
        num_mels: mel bands.
        window_s, hop_s: in seconds.
        num_cepstra: 0 gives log-mel bands, scaled to mean 0 and deviation 1 over the clip; else this many cepstral
            coefficients (c0 included), each with its mean over the clip taken out.

    Example:
        >>> log_mel = Frames(8000, num_mels=20, window_s=0.025, hop_s=0.01)
        >>> frames, lengths = log_mel(torch.randn(1, 800), torch.tensor([800]))
        >>> frames.shape, lengths
        (torch.Size([1, 11, 20]), tensor([11]))
    """

    def __init__(
        self,
        sample_rate_hz: int,
        num_mels: int,
        window_s: float,
        hop_s: float,
        num_cepstra: int = 0,
    ) -> None:
        super().__init__()
        window = round(window_s * sample_rate_hz)
        self.hop = round(hop_s * sample_rate_hz)
        n_fft = 2 ** (window - 1).bit_length()
        self.mel = MelSpectrogram(
            sample_rate_hz,
            n_fft,
            window,
            self.hop,
            n_mels=num_mels,
            pad_mode="constant",
            mel_scale="slaney",
        )

        self.width = num_cepstra or num_mels
        dct = create_dct(num_cepstra, num_mels, norm="ortho") if num_cepstra else None
        self.register_buffer("dct", dct, persistent=False)

    def forward(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S] -> ([B, T, width], zeros after a clip's end; [B] numbers of frames)."""
        with torch.autocast(waveform.device.type, enabled=False):  # a logarithm wants its digits
            return self._frames(waveform.float(), num_samples)

    def _frames(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(waveform.shape[1], device=waveform.device)
        inside = places < num_samples[:, None]
        power = self.mel(torch.where(inside, waveform, 0.0)).transpose(1, 2)
        lengths = num_samples // self.hop + 1
        keep = frame_mask(lengths, power.shape[1])

        # A floor below the clip's loudest, not an absolute one: silence of a codec is not that of a recording.
        bands = torch.where(keep, power, 0.0).clamp(min=1e-10).log()
        loudest = bands.amax((1, 2), keepdim=True)
        bands = torch.maximum(bands, loudest - _FLOOR)
        if isinstance(self.dct, Tensor):
            frames = torch.where(keep, bands @ self.dct, 0.0)
            mean = frames.sum(1, keepdim=True) / lengths[:, None, None]
            # The first coefficients are an order of magnitude larger than the rest.
            return torch.where(keep, (frames - mean) / 5.0, 0.0), lengths

        # One mean and one deviation over all bands: the shape of the spectrum stays.
        count = lengths[:, None, None] * self.width
        mean = torch.where(keep, bands, 0.0).sum((1, 2), keepdim=True) / count
        centred = bands - mean
        squares = torch.where(keep, centred.square(), 0.0)
        variance = squares.sum((1, 2), keepdim=True) / count
        scaled = centred / (variance + 1e-5).sqrt()
        return torch.where(keep, scaled, 0.0), lengths


@contextmanager
def seeded_weights(kind: str, seed: int) -> Iterator[None]:
    """Weights made inside depend on (kind, seed) alone; the global random state is as before after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_to_seed("judge", kind, seed) % 2**32)
        yield


class JudgeNetwork(nn.Module, ABC):
    """The trainable inside of a judge: audio in, whatever out. A subclass calls `remember` in its ``__init__``."""

    sample_rate_hz: int
    sizes: dict[str, Any]

    def remember(self, **sizes: Any) -> None:
        """Keep the constructor's arguments, plain data, for `save`."""
        # As JSON reads them back.
        self.sizes = {}
        for name, value in sizes.items():
            self.sizes[name] = list(value) if isinstance(value, tuple) else value

    @abstractmethod
    def forward(self, waveform: Tensor, num_samples: Tensor) -> Any:
        """[B, S] at ``sample_rate_hz``, [B]."""

    def save(self, folder: str, metrics: Mapping[str, float] | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors``; ``metrics`` say how good it is, for a reader."""
        config = {
            "kind": type(self).__name__,
            "sizes": self.sizes,
            "figures": dict(metrics or {}),
        }
        save_own(self, folder, config)


def load_network(folder: str, kinds: tuple[type[JudgeNetwork], ...]) -> JudgeNetwork:
    """The network saved in ``folder``.

    Raises:
        FileNotFoundError: when a file is missing.
        JudgeError: for a folder that holds another kind of network, or weights that do not fit its config.
    """
    config = read_own_config(
        folder, "{folder}: no {name}; expected a folder written by the training of a judge"
    )
    by_name = {kind.__name__: kind for kind in kinds}
    kind = config.get("kind")
    if kind not in by_name:
        raise JudgeError(
            f"{folder}/config.json: kind is {kind!r}; expected one of {', '.join(by_name)}; it describes "
            f"{what_it_is(config)}"
        )

    try:
        network = by_name[kind](**config["sizes"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise JudgeError(
            f"{folder}/config.json: its sizes are not those of a {kind} ({first_line(error)}); copy it again"
        ) from error
    try:
        load_own(network, folder)
    except WeightsError as error:
        raise JudgeError(str(error)) from error
    return network
