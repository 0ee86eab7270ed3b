"""Training of a small speaker encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_audiorl.checks import check_number
from lightning_audiorl.codecs.network_training import val_set_name
from lightning_audiorl.judges.models.speakers import SpeakerNetwork
from lightning_audiorl.judges.training.base import JudgeTraining
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.types import PromptBatch, Utterance


def speaker_index(speakers: Sequence[str], name: str, row_id: str) -> int:
    """Place of a speaker in the list.

    Raises:
        ValueError: for a speaker that is not in it, naming the row.

    Example:
        >>> speaker_index(["george", "lucas"], "lucas", "row")
        1
    """
    if name not in speakers:
        raise ValueError(
            f"row {row_id!r}: speaker {name!r} is not among {list(speakers)}; add it or leave the row out"
        )
    return list(speakers).index(name)


def margin_loss(cosines: Tensor, labels: Tensor, margin: float, scale: float) -> Tensor:
    """Additive angular margin softmax (ArcFace, arXiv:1801.07698, eq. 3), mean over [B, N] cosines.

    Args:
        cosines: [B, N] of B embeddings to the centres of N speakers.
        labels: [B] the speaker of each.
        margin: angle in radians that is added to the own speaker's.
        scale: of the cosines.

    Example:
        >>> round(float(margin_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), margin=0.0, scale=1.0)), 3)
        0.313
    """
    # Away from +-1, where the gradient of acos is infinite.
    angle = cosines.clamp(-1 + 1e-6, 1 - 1e-6).acos()
    own = nn.functional.one_hot(labels, cosines.shape[1]).bool()
    with_margin = torch.where(own, angle + margin, angle).clamp(max=math.pi)
    return nn.functional.cross_entropy(scale * with_margin.cos(), labels)


class SpeakerTraining(JudgeTraining):
    """Classification of the rows' speakers; the classes are dropped afterwards and the embeddings remain.

    Logs ``loss``, and for every validation set ``val/<set>/accuracy`` (of the training speakers), and the mean cosine
    of two clips of one speaker, ``val/<set>/same``, and of two speakers, ``val/<set>/different``.

    Args:
        network: `EcapaNetwork` or `XvectorNetwork`.
        speakers: names of all speakers.
        margin: angle in radians by which a clip must be nearer to its own speaker.
        scale: of the cosines.
        kwargs: see `JudgeTraining`.
    """

    network: SpeakerNetwork

    def __init__(
        self,
        network: SpeakerNetwork,
        num_steps: int,
        speakers: Sequence[str],
        margin: float = 0.2,
        scale: float = 20.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, num_steps, **kwargs)
        check_number("SpeakerTraining.margin", margin, at_least=0)
        check_number("SpeakerTraining.scale", scale, above=0)
        if len(set(speakers)) < 2 or len(set(speakers)) != len(speakers):
            raise ValueError(
                f"SpeakerTraining.speakers: want two or more names, each once; got {list(speakers)}"
            )
        self.speakers = list(speakers)
        self.margin = margin
        self.scale = scale

        generator = keyed_generator("judge centres", self.seed)
        centres = torch.randn(len(speakers), network.dim, generator=generator)
        self.centres = nn.Parameter(centres)
        self._clips: dict[str, list[tuple[Tensor, int]]] = {}

    def _labels(self, rows: Sequence[Utterance]) -> list[int]:
        return [speaker_index(self.speakers, row.speaker, row.id) for row in rows]

    def _cosines(self, embeddings: Tensor) -> Tensor:
        """[B, N] of embeddings [B, D] to the centres of the N speakers."""
        voices = nn.functional.normalize(embeddings, dim=-1)
        centres = nn.functional.normalize(self.centres, dim=-1)
        return voices @ centres.T

    def loss(
        self,
        waveform: Tensor,
        num_samples: Tensor,
        rows: Sequence[Utterance],
    ) -> Tensor:
        labels = torch.tensor(self._labels(rows), device=waveform.device)
        cosines = self._cosines(self.network(waveform, num_samples))
        return margin_loss(cosines, labels, self.margin, self.scale)

    def on_validation_epoch_start(self) -> None:
        """Begin the embeddings."""
        self._clips = {}

    def validation_step(
        self,
        batch: PromptBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Embed each clip alone, as the judge does."""
        clips = self._clips.setdefault(val_set_name(self, dataloader_idx), [])
        waveform, num_samples = self.inputs(batch)
        labels = self._labels(batch.rows)
        for wave, length, label in zip(waveform, num_samples, labels, strict=True):
            embedding = self.network(wave[None, :length], length[None])
            voice = nn.functional.normalize(embedding[0], dim=-1)
            clips.append((voice, label))

    def on_validation_epoch_end(self) -> None:
        """Log how well every set's speakers are told apart."""
        metrics = {}
        for name, clips in self._clips.items():
            embeddings = torch.stack([embedding for embedding, _ in clips])
            labels = torch.tensor([label for _, label in clips], device=embeddings.device)

            hits = self._cosines(embeddings).argmax(-1) == labels
            same, different = mean_cosines(embeddings, labels)
            metrics[f"{name}/accuracy"] = float(hits.float().mean())
            metrics[f"{name}/same"] = same
            metrics[f"{name}/different"] = different
        self.finish_validation(metrics)


def mean_cosines(embeddings: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cosine over pairs of [N, D] unit vectors with the same label, and over pairs with different ones.

    Example:
        >>> mean_cosines(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1]))
        (1.0, 0.0)
    """
    cosines = embeddings @ embeddings.T
    same = labels[:, None] == labels
    # Each pair once, and no clip with itself.
    pairs = torch.ones_like(same).triu(1)
    of_same = cosines[same & pairs]
    of_different = cosines[~same & pairs]
    return float(of_same.mean()), float(of_different.mean())
