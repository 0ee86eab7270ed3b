"""Policies whose decoder reads the encoder's output through cross-attention (Whisper, Canary, ...).

The decoder's prompt and the keys and values of the cross-attention are computed once per clip and shared by its group.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import Cache

from lightning_audiorl.fields import Shape
from lightning_audiorl.models.decoding.cache import cache_argument, lengthen, make_room
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy, PrefixContext
from lightning_audiorl.models.decoding.group_rows import GroupRows
from lightning_audiorl.models.decoding.shared_prefix import Layout
from lightning_audiorl.types import Decoding, Rollout


@dataclass(frozen=True)
class EncodedContext(PrefixContext):
    """Encoder output of B clips and the decoder's prompt for each.

    Args:
        ids, durations_s: of the prompts.
        features: [B, F, E] encoder output.
        tokens: [B, P] decoder prompts, all of one length.
    """

    features: Annotated[Tensor, Shape("B F E")]
    tokens: Annotated[Tensor, Shape("B P")]

    @property
    def prompt_lengths(self) -> list[int]:
        return [self.tokens.shape[1]] * len(self)

    @property
    def frames_kept(self) -> Tensor | None:
        """[B, F] bool, the frames that are attended to; None for all."""
        return None


@dataclass(frozen=True)
class MaskedContext(EncodedContext):
    """Encoder output of clips of several lengths.

    Args:
        features: [B, F, E], zero-padded on the right.
        keep: [B, F] bool.
    """

    features: Annotated[Tensor, Shape("B F E", pad="F", lengths="num_frames")]
    keep: Annotated[Tensor, Shape("B F", pad="F", lengths="num_frames")]

    @property
    def num_frames(self) -> Tensor:
        """[B] frames of each clip."""
        return self.keep.sum(-1)

    @property
    def frames_kept(self) -> Tensor:
        return self.keep


def _frames_argument(keep: Tensor | None) -> dict[str, Tensor]:
    """What a decoder's forward takes beside the encoder's output."""
    # A mask of four dimensions goes to the layers as it is.
    return {} if keep is None else {"encoder_attention_mask": keep[:, None, None]}


def _empty_cache() -> EncoderDecoderCache:
    return EncoderDecoderCache(DynamicCache(), DynamicCache())


@dataclass
class _CrossAttending:
    """Decoder state after prompts of one length: a `cached_prompt.PromptState`.

    Args:
        features: the encoder output of the prompts. Only the first call reads it: from then on the cross-attention
            takes keys and values from the cache.
        shares_clips: whether the samples of a group attend to one copy of those; else they are repeated with the
            other rows of the cache.
        keep: [rows, F] bool, the frames that are attended to, of clips where they are shared; None for all.
    """

    decoder: nn.Module
    features: Tensor
    shares_clips: bool
    keep: Tensor | None = None
    clip_rows: GroupRows | None = None
    hidden: Tensor = field(init=False)
    cache: EncoderDecoderCache = field(default_factory=_empty_cache)

    def expand(self, repeats: int) -> None:
        if repeats > 1:
            self._caches().batch_repeat_interleave(repeats)
        if self.shares_clips:
            self.clip_rows = GroupRows.whole(len(self.hidden), repeats, self.hidden.device)
        elif self.keep is not None:
            self.keep = self.keep.repeat_interleave(repeats, 0)
        self.hidden = self.hidden.repeat_interleave(repeats, 0)

    def _caches(self) -> Cache:
        """Those that have as many rows as there are samples."""
        return self.cache.self_attention_cache if self.shares_clips else self.cache

    def extend(self, tokens: Tensor) -> None:
        """Append ``tokens`` [rows, n]."""
        self.hidden = self.decoder(
            input_ids=tokens,
            encoder_hidden_states=self.features,
            use_cache=True,
            **({} if self.clip_rows is None else {"clip_rows": self.clip_rows}),
            **_frames_argument(self.keep),
            **cache_argument(self.decoder, self.cache),
        ).last_hidden_state[:, -1]

    def advance(self, tokens: Tensor) -> None:
        make_room(self.cache.self_attention_cache)
        self.extend(tokens[:, None])

    def lengthen(self, num: int) -> None:
        lengthen(self.cache.self_attention_cache, num)

    def select(self, rows: Tensor) -> None:
        self._caches().batch_select_indices(rows)
        self.hidden = self.hidden[rows]
        if self.clip_rows is None:
            self._select_frames(rows)
            return

        # A clip none of whose samples goes on need not be held.
        first: Any = self.cache.cross_attention_cache.layers[0]
        num_clips = len(first.keys)
        clips, self.clip_rows = self.clip_rows.selected(rows)
        if len(clips) < num_clips:
            self.cache.cross_attention_cache.batch_select_indices(clips)
            self._select_frames(clips)

    def _select_frames(self, rows: Tensor) -> None:
        if self.keep is not None:
            self.keep = self.keep[rows]


class EncoderDecoderPolicy(CachedPromptPolicy[EncodedContext]):
    """What encoder-decoder families share; a family adds `encode` and its loading."""

    @property
    @abstractmethod
    def max_positions(self) -> int:
        """Most tokens, prompt included, that the decoder has positions for."""

    def caps(self, context: EncodedContext, decoding: Decoding) -> list[int]:
        room = self.max_positions - context.tokens.shape[1]
        return [min(room, cap) for cap in super().caps(context, decoding)]

    def prefill(self, context: EncodedContext) -> _CrossAttending:
        # Elsewhere another kernel attends, whose numbers may depend on how the rows stand.
        shares_clips = self.fused_attention
        if shares_clips is None:
            shares_clips = context.features.device.type == "cpu"
        state = _CrossAttending(self.backbone, context.features, shares_clips, context.frames_kept)
        state.extend(context.tokens)
        return state

    def packed(
        self, context: EncodedContext, completions: Tensor
    ) -> tuple[Layout, dict[str, Tensor]]:
        layout = Layout(torch.ones_like(context.tokens, dtype=torch.bool), *completions.shape[1:])
        tokens = torch.cat([context.tokens, completions.flatten(1)], dim=1)
        inputs = {"input_ids": tokens, "encoder_hidden_states": context.features}
        return layout, inputs | _frames_argument(context.frames_kept)

    def targets(self, context: EncodedContext, texts: Sequence[str]) -> Rollout:
        rollout = super().targets(context, texts)
        room = self.max_positions - context.tokens.shape[1]
        for row_id, length in zip(context.ids, rollout.lengths[:, 0].tolist(), strict=True):
            if length > room:
                raise ValueError(
                    f"row {row_id!r}: text has {length} tokens, this model's decoder takes {room}; split the clip"
                )
        return rollout
