"""Speech of several codes at once: frames through a codec, and the depth decoder that follows the first code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, MimiModel

from lightning_audiorl.models.decoding.cache import cache_argument
from lightning_audiorl.models.decoding.cached_prompt import PromptState
from lightning_audiorl.models.decoding.sampling import draw
from lightning_audiorl.models.decoding.tokens import targets_of
from lightning_audiorl.models.tts.codes import batches_by_length
from lightning_audiorl.types import Decoding, Rollout, Speech

#: C codes, one of each codebook.
Frame = list[int]


def encode_frames(
    codec: MimiModel, waveform: Tensor, num_samples: Tensor, num_codebooks: int
) -> list[list[Frame]]:
    """The frames of each clip; none for a clip of 0 samples.

    One by one: in a batch a clip's padding would reach its last frame.

    Args:
        codec: on the waveform's device.
        waveform: [B, S] at the codec's rate.
        num_samples: [B].
        num_codebooks: C, of those that the codec has.
    """
    out: list[list[Frame]] = []
    for wave, num in zip(waveform, num_samples.tolist(), strict=True):
        if not num:
            out.append([])
            continue
        with torch.no_grad(), torch.autocast(wave.device.type, enabled=False):
            encoded = codec.encode(wave[None, None, :num].float(), num_quantizers=num_codebooks)
        out.append(encoded.audio_codes[0].T.tolist())
    return out


def decode_frames(
    codec: MimiModel, rows: Sequence[Sequence[Frame]], device: torch.device, batch_size: int
) -> list[Speech]:
    """Speech of each row of frames, on the CPU; no sample for a row without any.

    Args:
        codec: as in `encode_frames`, on ``device``.
        rows: frames without those of the prompt, nor one that ends speech.
        device: where the codec computes.
        batch_size: most rows at once; they are of one length.
    """
    rate_hz = codec.config.sampling_rate
    out = [Speech(torch.zeros(0), rate_hz, torch.zeros(0, dtype=torch.long)) for _ in rows]
    lengths = [len(row) for row in rows]
    for length in sorted(set(lengths)):
        of_length = [size if size == length else 0 for size in lengths]
        for index in batches_by_length(of_length, batch_size):
            frames = torch.tensor([rows[i] for i in index], device=device)
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                waveforms = codec.decode(frames.transpose(1, 2)).audio_values[:, 0]

            first_codes = frames[..., 0].cpu()
            for i, wave, codes in zip(index, waveforms.float().cpu(), first_codes, strict=True):
                out[i] = Speech(wave.clone(), rate_hz, codes.clone())
    return out


def whole_frames(rollout: Rollout) -> Tensor:
    """[B, G, T, C] codes of a rollout, the first one and those that follow it.

    Raises:
        ValueError: for a rollout of one code at a time.
    """
    if rollout.following is None:
        raise ValueError(
            "a rollout without the codes that follow the first one: the model reads whole frames; keep "
            "Rollout.following of what the policy sampled"
        )
    return torch.cat([rollout.tokens[..., None], rollout.following], dim=-1)


def targets_of_frames(rows: Sequence[Sequence[Frame]], device: torch.device) -> Rollout:
    """Target frames, the one that ends speech included, as a rollout of G=1; see `targets_of`.

    Example:
        >>> rollout = targets_of_frames([[[5, 6], [0, 0]], [[0, 0]]], torch.device("cpu"))
        >>> rollout.tokens.tolist(), rollout.following.tolist()
        ([[[5, 0]], [[0, 0]]], [[[[6], [0]]], [[[0], [0]]]])
    """
    end = rows[0][-1][0]
    first_codes = [[frame[0] for frame in row] for row in rows]
    rollout = targets_of(first_codes, end, device)

    num_following = len(rows[0][-1]) - 1
    following = torch.zeros(*rollout.tokens.shape, num_following, dtype=torch.long)
    for b, row in enumerate(rows):
        following[b, 0, : len(row)] = torch.tensor([frame[1:] for frame in row])
    return replace(rollout, following=following.to(device))


@dataclass
class FrameState:
    """Stands after prompts and the whole frames behind them: a `PromptState`.

    The sampling loop draws the first code of a frame by `hidden`; the others follow from the same state, by draws of
    their own.

    Args:
        prefix: what reads the frames.
        depth: the depth decoder.
        allowed: [V] bool, the codes that may follow.
        end: the code of which a frame that ends speech is made.
        decoding: of the codes that follow.
        uniforms: [rows, most frames, C - 1] float64 draws; None where none are made (greedy, or a plan).
    """

    prefix: PromptState
    depth: Any
    allowed: Tensor
    end: int
    decoding: Decoding = field(default_factory=lambda: Decoding(temperature=0.0))
    uniforms: Tensor | None = None

    def __post_init__(self) -> None:
        self.hidden = self.prefix.hidden
        self._rows = torch.arange(len(self.hidden), device=self.hidden.device)
        self._frame: Tensor | None = None
        self._kept: list[tuple[Tensor, Tensor]] = []

    def expand(self, repeats: int) -> None:
        self.prefix.expand(repeats)
        self.hidden = self.prefix.hidden
        self._rows = torch.arange(len(self.hidden), device=self.hidden.device)

    def lengthen(self, num: int) -> None:
        self.prefix.lengthen(num)

    def ends(self, tokens: Tensor) -> Tensor:
        """Let the other codes follow ``tokens`` [rows], the first ones: [rows] bool, whether the frame ends speech.

        As in the class's own ``generate``, the last code of a frame does not count.
        """
        self._frame = self._followed(tokens)
        self._kept.append((self._rows, self._frame))
        return (self._frame[:, :-1] == self.end).all(-1)

    def advance(self, tokens: Tensor) -> None:
        frame = self._followed(tokens) if self._frame is None else self._frame
        self._frame = None
        self.prefix.advance(frame)
        self.hidden = self.prefix.hidden

    def select(self, rows: Tensor) -> None:
        self.prefix.select(rows)
        self.hidden = self.prefix.hidden
        self._rows = self._rows[rows]
        if self._frame is not None:
            self._frame = self._frame[rows]

    def following(self, keep: Tensor) -> Tensor:
        """The codes that followed, [B, G, T, C - 1] for a rollout's ``keep`` [B, G, T]; 0 where that is False."""
        num_rows = keep.shape[0] * keep.shape[1]
        num_following = self.depth.config.num_codebooks - 1
        shape = (num_rows, keep.shape[2], num_following)
        out = torch.zeros(shape, dtype=torch.long, device=keep.device)
        for t, (rows, frame) in enumerate(self._kept[: keep.shape[2]]):
            out[rows, t] = frame[:, 1:]
        return out.view(*keep.shape, num_following).masked_fill_(~keep[..., None], 0)

    @torch.no_grad()
    def _followed(self, first: Tensor) -> Tensor:
        """[rows, C]: each first code with those that the depth decoder draws behind it."""
        cache = DynamicCache()
        # The state of the backbone stands in the place of the first token.
        ids = torch.stack([torch.zeros_like(first), first], dim=1)
        given = {"backbone_last_hidden_state": self.hidden}

        frame = [first]
        for number in range(self.depth.config.num_codebooks - 1):
            out = self.depth(
                input_ids=ids,
                use_cache=True,
                logits_to_keep=1,
                **given,
                **cache_argument(self.depth, cache),
            )
            logits = out.logits[:, -1].masked_fill(~self.allowed, -torch.inf)
            drawn = draw(logits, self._uniform(number), self.decoding)
            frame.append(drawn.tokens)
            ids = drawn.tokens[:, None]
            given = {}
        return torch.stack(frame, dim=1)

    def _uniform(self, number: int) -> Tensor:
        """[rows] float64: the draws of the next frame's code ``number + 1``."""
        if self.uniforms is None:
            return torch.zeros(len(self._rows), dtype=torch.float64, device=self.hidden.device)
        return self.uniforms[self._rows, len(self._kept), number]
