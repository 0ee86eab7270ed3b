"""Speaker encoders: ECAPA-TDNN for the reward, and an x-vector of other layers and features to be held out."""

from __future__ import annotations

from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from torch import Tensor, nn
from torchaudio.functional import resample

from lightning_audiorl.judges.base import JudgeError, SpeakerEncoder
from lightning_audiorl.judges.models.networks import (
    Frames,
    JudgeNetwork,
    frame_mask,
    load_network,
    seeded_weights,
)
from lightning_audiorl.weights.checkpoints import read_tensors
from lightning_audiorl.weights.tensors import WeightsError, require_fit

#: Weights file of a SpeechBrain speaker model, such as speechbrain/spkrec-ecapa-voxceleb.
SPEECHBRAIN_FILE = "embedding_model.ckpt"


class SpeakerNetwork(JudgeNetwork):
    """Audio -> embeddings [B, D], not normalised."""

    dim: int


class EcapaNetwork(SpeakerNetwork):
    """SpeechBrain's ECAPA-TDNN (arXiv:2005.07143) on its filter banks, their mean over the clip taken out.

    The defaults are the sizes of speechbrain/spkrec-ecapa-voxceleb. Its convolutions pad by reflection: only a clip
    without padding gives the embedding that it has alone.

    Args:
        sample_rate_hz: of the audio it listens to.
        num_mels: mel bands.
        width: channels of the first four blocks; the fifth has three times as many.
        attention_width, se_width: of the pooling's attention and of squeeze-and-excitation.
        dim: D.
        seed: of the initial weights.

    Example:
        >>> network = EcapaNetwork(8000, num_mels=20, width=16, attention_width=8, se_width=8, dim=6).eval()
        >>> network(torch.randn(1, 8000), torch.tensor([8000])).shape
        torch.Size([1, 6])
    """

    def __init__(
        self,
        sample_rate_hz: int = 16000,
        num_mels: int = 80,
        width: int = 1024,
        attention_width: int = 128,
        se_width: int = 128,
        dim: int = 192,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.remember(
            sample_rate_hz=sample_rate_hz,
            num_mels=num_mels,
            width=width,
            attention_width=attention_width,
            se_width=se_width,
            dim=dim,
            seed=seed,
        )
        self.sample_rate_hz = sample_rate_hz
        self.dim = dim

        # Features and layers of SpeechBrain's recipe, so that its published weights fit.
        self.bands = Fbank(sample_rate=sample_rate_hz, n_mels=num_mels)
        with seeded_weights("EcapaNetwork", seed):
            self.ecapa = ECAPA_TDNN(
                num_mels,
                lin_neurons=dim,
                channels=[width] * 4 + [3 * width],
                attention_channels=attention_width,
                se_channels=se_width,
            )

    def forward(self, waveform: Tensor, num_samples: Tensor) -> Tensor:
        bands = self.bands(waveform)
        num_frames = bands.shape[1]
        lengths = (num_samples / waveform.shape[1] * num_frames).round().clamp(1, num_frames)
        keep = frame_mask(lengths, num_frames)

        total = torch.where(keep, bands, 0.0).sum(1, keepdim=True)
        mean = total / lengths[:, None, None]
        frames = torch.where(keep, bands - mean, 0.0)
        embedding: Tensor = self.ecapa(frames, lengths / num_frames)
        return embedding.squeeze(1)


class XvectorNetwork(SpeakerNetwork):
    """Cepstral coefficients, time-delay layers, mean and deviation over time (x-vector, Snyder et al. 2018).

    Args:
        sample_rate_hz: of the audio it listens to.
        num_cepstra: cepstral coefficients.
        width: of the layers.
        dim: D.
        seed: of the initial weights.

    Example:
        >>> network = XvectorNetwork(8000, num_cepstra=12, width=8, dim=6).eval()
        >>> network(torch.randn(2, 8000), torch.tensor([8000, 4000])).shape
        torch.Size([2, 6])
    """

    def __init__(
        self,
        sample_rate_hz: int = 8000,
        num_cepstra: int = 24,
        width: int = 128,
        dim: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.remember(
            sample_rate_hz=sample_rate_hz, num_cepstra=num_cepstra, width=width, dim=dim, seed=seed
        )
        self.sample_rate_hz = sample_rate_hz
        self.dim = dim
        self.frames = Frames(
            sample_rate_hz, 30, window_s=0.025, hop_s=0.01, num_cepstra=num_cepstra
        )

        taps_and_dilations = ((5, 1), (3, 2), (3, 3), (1, 1))
        widths = [num_cepstra, *[width] * len(taps_and_dilations)]
        with seeded_weights("XvectorNetwork", seed):
            self.layers = nn.ModuleList(
                nn.Conv1d(
                    widths[i], width, taps, padding=dilation * (taps - 1) // 2, dilation=dilation
                )
                for i, (taps, dilation) in enumerate(taps_and_dilations)
            )
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in taps_and_dilations)
            self.out = nn.Linear(2 * width, dim)

    def forward(self, waveform: Tensor, num_samples: Tensor) -> Tensor:
        x, lengths = self.frames(waveform, num_samples)
        keep = frame_mask(lengths, x.shape[1])
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = layer(x.transpose(1, 2)).transpose(1, 2)
            x = torch.where(keep, norm(x).relu(), 0.0)

        # Mean and deviation over the clip's own frames.
        count = lengths[:, None]
        mean = x.sum(1) / count
        squares = (x - mean[:, None]).square()
        variance = torch.where(keep, squares, 0.0).sum(1) / count
        deviation = (variance + 1e-5).sqrt()
        pooled: Tensor = self.out(torch.cat([mean, deviation], -1))
        return pooled


SPEAKER_NETWORKS: tuple[type[SpeakerNetwork], ...] = (EcapaNetwork, XvectorNetwork)


class NetworkEncoder(SpeakerEncoder):
    """A speaker encoder around one of our networks, one clip per pass through it.

    Args:
        network: frozen from now on.
        name: see Judge.
    """

    def __init__(self, network: JudgeNetwork, name: str) -> None:
        super().__init__(name, network.sample_rate_hz)
        self.network = network
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
            clip = wave[None, :length].to(self.device)
            clip = resample(clip, sample_rate_hz, self.sample_rate_hz)
            num = torch.tensor([clip.shape[1]], device=self.device)
            embeddings.append(self.network(clip, num))
        return nn.functional.normalize(torch.cat(embeddings).float(), dim=-1)


class XvectorEncoder(NetworkEncoder):
    """An x-vector of ours.

    Args:
        folder: written by `SpeakerTraining`.
        name: see Judge; by default the folder's own name.
    """

    def __init__(self, folder: str, name: str | None = None) -> None:
        network = load_network(folder, (XvectorNetwork,))
        super().__init__(network, name or Path(folder).name)


class EcapaEncoder(NetworkEncoder):
    """ECAPA-TDNN: one that `SpeakerTraining` wrote, or SpeechBrain's published one.

    Args:
        source: our folder; a folder with SpeechBrain's ``embedding_model.ckpt``; or a hub id that has this file, such
            as speechbrain/spkrec-ecapa-voxceleb. Its weights are read as plain tensors, no code of it runs.
        name: see Judge; by default the last part of ``source``.
        revision: of a hub id.
    """

    def __init__(
        self,
        source: str,
        name: str | None = None,
        revision: str | None = None,
    ) -> None:
        super().__init__(_ecapa(source, revision), name or Path(source).name)


def _ecapa(source: str, revision: str | None) -> JudgeNetwork:
    """Our network in a folder, or SpeechBrain's weights from a folder or the hub; see `EcapaEncoder`."""
    folder = Path(source).expanduser()
    if (folder / "config.json").is_file():
        return load_network(source, (EcapaNetwork,))

    if folder.is_dir():
        file = folder / SPEECHBRAIN_FILE
    elif source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise FileNotFoundError(
            f"EcapaEncoder.source: no folder {source} (a hub id has the form owner/name)"
        )
    else:
        file = Path(hf_hub_download(source, SPEECHBRAIN_FILE, revision=revision))
    if not file.is_file():
        raise FileNotFoundError(
            f"{source}: holds neither config.json (ours) nor {SPEECHBRAIN_FILE} (SpeechBrain's)"
        )

    network = EcapaNetwork()
    tensors = read_tensors(file)
    try:
        require_fit(network.ecapa, tensors, str(file))
    except WeightsError as error:
        raise JudgeError(
            f"{file}: not the sizes of speechbrain/spkrec-ecapa-voxceleb: {error}"
        ) from error
    network.ecapa.load_state_dict(tensors)
    return network
