"""Small character recognisers (CTC) that train from nothing on a CPU: two networks that share neither layers nor
features, so that one can be rewarded and the other held out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from lightning_audiorl.judges.base import AsrJudge, require_numbers
from lightning_audiorl.judges.models.networks import (
    Frames,
    JudgeNetwork,
    frame_mask,
    load_network,
    seeded_weights,
)
from lightning_audiorl.types import Utterance

ENGLISH_CHARACTERS = "abcdefghijklmnopqrstuvwxyz' "
BLANK = 0


def greedy_text(ids: Sequence[int], characters: str) -> str:
    """Best path of a CTC output: repeats joined, blanks (0) dropped; id i is ``characters[i - 1]``.

    Example:
        >>> greedy_text([1, 1, 0, 1, 2], "ab")
        'aab'
    """
    text = ""
    before = BLANK
    for now in ids:
        if now not in (BLANK, before):
            text += characters[now - 1]
        before = now
    return text


class CtcNetwork(JudgeNetwork):
    """Audio -> log-probabilities of blank and characters."""

    characters: str

    @abstractmethod
    def forward(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S], [B] -> [B, T, 1 + len(characters)] log-probs, [B] frames. Padding does not reach a clip's frames."""


class LogMelGru(CtcNetwork):
    """Log-mel bands, three convolutions (20 ms per frame), and a bidirectional GRU beside them for context.

    Args:
        characters: what it can write, blank not included.
        sample_rate_hz: of the audio it listens to.
        num_mels: mel bands.
        width: of the convolutions, and of each direction of the GRU.
        dropout: between the layers, in training.
        seed: of the initial weights.

    Example:
        >>> log_probs, lengths = LogMelGru("abc", width=8)(torch.randn(1, 8000), torch.tensor([8000]))
        >>> log_probs.shape, lengths
        (torch.Size([1, 51, 4]), tensor([51]))
    """

    def __init__(
        self,
        characters: str = ENGLISH_CHARACTERS,
        sample_rate_hz: int = 8000,
        num_mels: int = 40,
        width: int = 96,
        dropout: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.remember(
            characters=characters,
            sample_rate_hz=sample_rate_hz,
            num_mels=num_mels,
            width=width,
            dropout=dropout,
            seed=seed,
        )
        self.characters = characters
        self.sample_rate_hz = sample_rate_hz
        self.frames = Frames(sample_rate_hz, num_mels, window_s=0.032, hop_s=0.01)

        with seeded_weights("LogMelGru", seed):
            taps_strides = ((5, 2), (5, 1), (5, 1))
            widths = (num_mels, width, width)
            self.convs = nn.ModuleList(
                nn.Conv1d(before, width, taps, stride, padding=taps // 2)
                for before, (taps, stride) in zip(widths, taps_strides, strict=True)
            )
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in taps_strides)
            self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
            self.out = nn.Linear(width, 1 + len(characters))
            self.out_context = nn.Linear(2 * width, 1 + len(characters), bias=False)

        # The convolutions find the letters first; with the GRU in from the start, blanks win for hundreds of steps.
        nn.init.zeros_(self.out_context.weight)
        self.dropout = nn.Dropout(dropout)

    def forward(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        x, lengths = self.frames(waveform, num_samples)
        # The first convolution has stride 2.
        lengths = (lengths + 1) // 2
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x.transpose(1, 2)).transpose(1, 2)
            x = norm(x).relu()
            x = torch.where(frame_mask(lengths, x.shape[1]), x, 0.0)
        x = self.dropout(x)

        # Packed: the backward direction starts at a clip's end, not in its padding.
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = self.gru(packed)
        context, _ = pad_packed_sequence(states, batch_first=True)
        scores = self.out(x) + self.out_context(self.dropout(context))
        return scores.float().log_softmax(-1), lengths


class _Block(nn.Module):
    """Gated dilated convolution with a residual, on [B, T, width]."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, 2 * width, 5, padding=2 * dilation, dilation=dilation)
        self.mix = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        inner = torch.where(keep, self.norm(x), 0.0).transpose(1, 2)
        gated = nn.functional.glu(self.conv(inner), dim=1).transpose(1, 2)
        return x + self.dropout(self.mix(gated))


class MfccConv(CtcNetwork):
    """Cepstral coefficients, gated dilated convolutions; no recurrence (20 ms per frame).

    Args:
        characters: what it can write, blank not included.
        sample_rate_hz: of the audio it listens to.
        num_cepstra: cepstral coefficients.
        width: of the convolutions.
        dilations: one block each.
        dropout: in each block, in training.
        seed: of the initial weights.

    Example:
        >>> log_probs, lengths = MfccConv("abc", width=8, dilations=(1, 2))(torch.randn(1, 8000), torch.tensor([8000]))
        >>> log_probs.shape, lengths
        (torch.Size([1, 51, 4]), tensor([51]))
    """

    def __init__(
        self,
        characters: str = ENGLISH_CHARACTERS,
        sample_rate_hz: int = 8000,
        num_cepstra: int = 20,
        width: int = 96,
        dilations: Sequence[int] = (1, 2, 4, 1, 2, 4),
        dropout: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.remember(
            characters=characters,
            sample_rate_hz=sample_rate_hz,
            num_cepstra=num_cepstra,
            width=width,
            dilations=list(dilations),
            dropout=dropout,
            seed=seed,
        )
        self.characters = characters
        self.sample_rate_hz = sample_rate_hz

        # Other features than those of `LogMelGru`, so that one can be held out beside the other.
        self.frames = Frames(
            sample_rate_hz, 26, window_s=0.025, hop_s=0.01, num_cepstra=num_cepstra
        )
        with seeded_weights("MfccConv", seed):
            self.first = nn.Conv1d(num_cepstra, width, 5, stride=2, padding=2)
            self.blocks = nn.ModuleList(_Block(width, dilation, dropout) for dilation in dilations)
            self.norm = nn.LayerNorm(width)
            self.out = nn.Linear(width, 1 + len(characters))

    def forward(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        x, lengths = self.frames(waveform, num_samples)
        x = self.first(x.transpose(1, 2)).transpose(1, 2)
        lengths = (lengths + 1) // 2

        keep = frame_mask(lengths, x.shape[1])
        for block in self.blocks:
            x = block(x, keep)
        scores = self.out(self.norm(x))
        return scores.float().log_softmax(-1), lengths


CTC_NETWORKS: tuple[type[CtcNetwork], ...] = (LogMelGru, MfccConv)


class CtcJudge(AsrJudge):
    """A character recogniser of ours, decoded greedily.

    Args:
        folder: written by `CtcTraining`.
        name: see Judge; by default the folder's own name.
        batch_size: clips per pass.
    """

    def __init__(
        self,
        folder: str,
        name: str | None = None,
        batch_size: int = 32,
    ) -> None:
        network = cast(CtcNetwork, load_network(folder, CTC_NETWORKS))
        super().__init__(name or Path(folder).name, network.sample_rate_hz, batch_size)
        self.network = network
        self.freeze()

    def listen(self, waveforms: list[Tensor], rows: list[Utterance]) -> list[str | None]:
        num_samples = torch.tensor([len(wave) for wave in waveforms], device=self.device)
        log_probs, lengths = self.network(pad_sequence(waveforms, batch_first=True), num_samples)
        require_numbers(log_probs)
        best = log_probs.argmax(-1).tolist()

        texts: list[str | None] = []
        for ids, length in zip(best, lengths.tolist(), strict=True):
            texts.append(greedy_text(ids[:length], self.network.characters).strip())
        return texts
