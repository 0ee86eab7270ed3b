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

from lightning_audiorl.fields import PerPrompt, Shape
from lightning_audiorl.models.decoding.cache import cache_argument, lengthen, make_room
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy, PrefixContext
from lightning_audiorl.models.decoding.group_rows import GroupRows
from lightning_audiorl.models.decoding.hotwords import prompt_text
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

    @property
    def prompts_kept(self) -> Tensor | None:
        """[B, P] bool, the tokens of each prompt, a prefix of its row; None where they are of one length."""
        return None


@dataclass(frozen=True)
class PromptedContext(EncodedContext):
    """Encoder output of clips and prompts of several lengths.

    Args:
        tokens: [B, P], padded on the right.
        lengths: B numbers of tokens.
    """

    tokens: Annotated[Tensor, Shape("B P", pad="P", lengths="num_tokens")]
    lengths: PerPrompt[list[int]]

    @property
    def num_tokens(self) -> Tensor:
        """[B] tokens of each prompt, in host memory."""
        return torch.tensor(self.lengths)

    @property
    def prompt_lengths(self) -> list[int]:
        return self.lengths

    @property
    def prompts_kept(self) -> Tensor | None:
        width = self.tokens.shape[1]
        if set(self.lengths) <= {width}:
            return None
        return (torch.arange(width) < self.num_tokens[:, None]).to(self.tokens.device)


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


def _on_the_left(tokens: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Prompts [B, P] and their keep mask, padded on the right -> on the left, so that the last column ends each.

    Example:
        >>> keep = torch.tensor([[True, True], [True, False]])
        >>> [moved.tolist() for moved in _on_the_left(torch.tensor([[5, 6], [7, 0]]), keep)]
        [[[5, 6], [7, 7]], [[True, True], [False, True]]]
    """
    padding = (~keep).sum(-1, keepdim=True)
    places = torch.arange(tokens.shape[1], device=tokens.device) - padding
    return tokens.gather(1, places.clamp(min=0)), places >= 0


def _empty_cache() -> EncoderDecoderCache:
    return EncoderDecoderCache(DynamicCache(), DynamicCache())


@dataclass
class _CrossAttending:
    """Decoder state after prompts: a `cached_prompt.PromptState`.

    Args:
        features: the encoder output of the prompts. Only the first call reads it: from then on the cross-attention
            takes keys and values from the cache.
        shares_clips: whether the samples of a group attend to one copy of those; else they are repeated with the
            other rows of the cache.
        keep: [rows, F] bool, the frames that are attended to, of clips where they are shared; None for all.
        mask: [rows, length] int64, the tokens that are attended to, of left-padded prompts; None where all are of one
            length.
    """

    decoder: nn.Module
    features: Tensor
    shares_clips: bool
    keep: Tensor | None = None
    mask: Tensor | None = None
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
        if self.mask is not None:
            self.mask = self.mask.repeat_interleave(repeats, 0)
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
            **self._prompts_argument(tokens.shape[1]),
            **_frames_argument(self.keep),
            **cache_argument(self.decoder, self.cache),
        ).last_hidden_state[:, -1]

    def _prompts_argument(self, num: int) -> dict[str, Tensor]:
        """What the decoder takes for the last ``num`` tokens, where prompts have several lengths."""
        if self.mask is None:
            return {}
        # Padding is at position 0, unseen.
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        return {"attention_mask": self.mask, "position_ids": positions[:, -num:]}

    def advance(self, tokens: Tensor) -> None:
        make_room(self.cache.self_attention_cache)
        self._keep_more(1)
        self.extend(tokens[:, None])

    def lengthen(self, num: int) -> None:
        lengthen(self.cache.self_attention_cache, num)
        self._keep_more(num)

    def _keep_more(self, num: int) -> None:
        """``num`` further tokens of each row are attended to."""
        if self.mask is not None:
            more = self.mask.new_ones(len(self.mask), num)
            self.mask = torch.cat([self.mask, more], dim=1)

    def select(self, rows: Tensor) -> None:
        self._caches().batch_select_indices(rows)
        if self.mask is not None:
            self.mask = self.mask[rows]
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
        caps = zip(context.prompt_lengths, super().caps(context, decoding), strict=True)
        return [min(self.max_positions - length, cap) for length, cap in caps]

    def prefill(self, context: EncodedContext) -> _CrossAttending:
        # Elsewhere another kernel attends, whose numbers may depend on how the rows stand.
        shares_clips = self.fused_attention
        if shares_clips is None:
            shares_clips = context.features.device.type == "cpu"
        state = _CrossAttending(self.backbone, context.features, shares_clips, context.frames_kept)

        tokens = context.tokens
        kept = context.prompts_kept
        if kept is not None:
            tokens, kept = _on_the_left(tokens, kept)
            state.mask = kept.long()
        state.extend(tokens)
        return state

    def packed(
        self, context: EncodedContext, completions: Tensor
    ) -> tuple[Layout, dict[str, Tensor]]:
        kept = context.prompts_kept
        if kept is None:
            kept = torch.ones_like(context.tokens, dtype=torch.bool)
        layout = Layout(kept, *completions.shape[1:])
        tokens = torch.cat([context.tokens, completions.flatten(1)], dim=1)
        inputs = {"input_ids": tokens, "encoder_hidden_states": context.features}
        return layout, inputs | _frames_argument(context.frames_kept)

    def prompt_texts(self, context: EncodedContext) -> list[str]:
        rows = zip(context.tokens.tolist(), context.prompt_lengths, strict=True)
        return [prompt_text(self.tokenizer, row[:length]) for row, length in rows]

    def targets(self, context: EncodedContext, texts: Sequence[str]) -> Rollout:
        rollout = super().targets(context, texts)
        rooms = [self.max_positions - length for length in context.prompt_lengths]
        lengths = rollout.lengths[:, 0].tolist()
        for row_id, length, room in zip(context.ids, lengths, rooms, strict=True):
            if length > room:
                raise ValueError(
                    f"row {row_id!r}: text has {length} tokens, this model's decoder takes {room}; split the clip"
                )
        return rollout
