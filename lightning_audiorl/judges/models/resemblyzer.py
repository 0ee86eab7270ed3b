"""Resemblyzer's speaker encoder: its weights, read from the package, in a network of ours."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torchaudio.functional import resample
from torchaudio.transforms import MelSpectrogram

from lightning_audiorl.judges.base import JudgeError, SpeakerEncoder
from lightning_audiorl.weights.checkpoints import read_tensors
from lightning_audiorl.weights.tensors import WeightsError, require_fit

_RATE_HZ = 16000
_HOP = 160
#: Frames of the stretch that the network was trained on, 1.6 s.
_STRETCH = 160
# Stretches begin so many frames apart: 1.3 of them a second.
_STEP = 77
# The last one counts where this much of it is filled.
_MIN_FILLED = 0.75
# Quieter speech is raised to this level.
_LEVEL_DBFS = -30.0


class VoiceNetwork(nn.Module):
    """Mel bands [B, T, 40] -> embeddings [B, 256] of length 1, none below 0 (GE2E, arXiv:1710.10467).

    Args:
        bands, width, layers, dim: the sizes of Resemblyzer by default.

    Example:
        >>> VoiceNetwork(bands=4, width=8, layers=1, dim=6)(torch.rand(2, 5, 4)).shape
        torch.Size([2, 6])
    """

    def __init__(self, bands: int = 40, width: int = 256, layers: int = 3, dim: int = 256) -> None:
        super().__init__()
        self.lstm = nn.LSTM(bands, width, layers, batch_first=True)
        self.linear = nn.Linear(width, dim)

    def forward(self, frames: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(frames)
        return nn.functional.normalize(self.linear(hidden[-1]).relu(), dim=-1)


def stretches(num_samples: int) -> list[int]:
    """First frames of the stretches of 1.6 s that a clip at 16 kHz is embedded by.

    Example:
        >>> stretches(8000), stretches(48000)
        ([0], [0, 77, 154])
    """
    num_frames = math.ceil((num_samples + 1) / _HOP)
    firsts = list(range(0, max(1, num_frames - _STRETCH + _STEP + 1), _STEP))
    filled = (num_samples - firsts[-1] * _HOP) / (_STRETCH * _HOP)
    if filled < _MIN_FILLED and len(firsts) > 1:
        firsts.pop()
    return firsts


class ResemblyzerEncoder(SpeakerEncoder):
    """Resemblyzer's encoder of voices, trained on LibriSpeech, VoxCeleb 1 and 2.

    The embedding of a clip is the mean over stretches of 1.6 s, as the package computes it; quiet speech is raised to
    -30 dBFS first. Unlike the package's ``preprocess_wav`` it does not cut out pauses, for which that needs a detector
    of speech that is no longer maintained.

    Args:
        weights: its file ``pretrained.pt``, read as plain tensors; None takes that of the installed package, of which
            nothing is imported (``pip install --no-deps Resemblyzer`` is enough).
        name: see Judge.

    Raises:
        ImportError: without ``weights`` and package.
        FileNotFoundError: no such file.
        JudgeError: for a file that holds other weights.
    """

    def __init__(self, weights: str | None = None, name: str = "resemblyzer") -> None:
        super().__init__(name, _RATE_HZ)
        self.network = VoiceNetwork()
        self.mel = MelSpectrogram(
            _RATE_HZ,
            n_fft=400,
            hop_length=_HOP,
            n_mels=40,
            norm="slaney",
            mel_scale="slaney",
            pad_mode="constant",
        )

        file = _weights_file(weights)
        tensors = read_tensors(file, under="model_state")
        # How sure the training was of its cosines; no part of an embedding.
        tensors = {name: tensor for name, tensor in tensors.items() if "similarity_" not in name}
        try:
            require_fit(self.network, tensors, str(file))
        except WeightsError as error:
            raise JudgeError(f"{file}: not the weights of Resemblyzer: {error}") from error
        self.network.load_state_dict(tensors)
        self.freeze()

    @torch.no_grad()
    def embed(
        self,
        waveform: Tensor,
        num_samples: Tensor,
        sample_rate_hz: int,
    ) -> Tensor:
        embeddings = []
        for wave, length in zip(waveform, num_samples.tolist(), strict=True):
            clip = resample(wave[:length].to(self.device), sample_rate_hz, self.sample_rate_hz)
            embeddings.append(self._embedding(clip))
        return torch.stack(embeddings)

    def _embedding(self, clip: Tensor) -> Tensor:
        """[256] of a clip [num_samples] at 16 kHz."""
        level = clip.square().mean().sqrt()
        target = 10 ** (_LEVEL_DBFS / 20)
        if 0 < float(level) < target:
            clip = clip * (target / level)

        # Silence fills the last stretch.
        firsts = stretches(len(clip))
        missing = (firsts[-1] + _STRETCH) * _HOP - len(clip)
        clip = nn.functional.pad(clip, (0, max(missing, 0)))

        frames = self.mel(clip).T
        pieces = torch.stack([frames[first : first + _STRETCH] for first in firsts])
        return nn.functional.normalize(self.network(pieces).mean(0), dim=-1)


def _weights_file(weights: str | None) -> Path:
    if weights is not None:
        file = Path(weights).expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"ResemblyzerEncoder.weights: no file {weights}")
        return file

    # Found and not imported: the package imports librosa and webrtcvad, and its weights need neither.
    package = find_spec("resemblyzer")
    if package is None or package.origin is None:
        raise ImportError(
            "ResemblyzerEncoder: Resemblyzer is not installed; pip install --no-deps Resemblyzer, or give weights: "
            "the path of its pretrained.pt"
        )
    return Path(package.origin).parent / "pretrained.pt"
