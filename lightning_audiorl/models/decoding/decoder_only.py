"""Policies whose language model reads the prompt and its continuation in one stream (FunAsrNano, Llasa, ...)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from lightning_audiorl.models.decoding.cache import cache_argument, lengthen, make_room
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy, PrefixT
from lightning_audiorl.models.decoding.shared_prefix import Layout
from lightning_audiorl.models.decoding.shared_prompt import SharedPrompt, has_window

Side = Literal["left", "right"]


@dataclass
class _CachedPrefix:
    """Decoder state after a left-padded prompt: a `cached_prompt.PromptState`.

    Args:
        backbone, embed: of the policy.
        hidden: [rows, D].
        mask: [rows, length] int64, the tokens that are attended to; of prompts [B, P] where they are shared.
        positions: [rows] of the next tokens.
        fused: as of `SharedPrompt.of`.
        shared: the prompts, once they are shared by their groups.
    """

    backbone: PreTrainedModel
    embed: nn.Module
    hidden: Tensor
    mask: Tensor
    positions: Tensor
    cache: DynamicCache = field(default_factory=DynamicCache)
    fused: bool | None = None
    shared: SharedPrompt | None = None

    def expand(self, repeats: int) -> None:
        if repeats == 1:
            return
        self.hidden = self.hidden.repeat_interleave(repeats, 0)
        self.positions = self.positions.repeat_interleave(repeats, 0)

        # Each token of a window sees other tokens of the prompt: its rows have copies of their own.
        if has_window(self.backbone):
            self.cache.batch_repeat_interleave(repeats)
            self.mask = self.mask.repeat_interleave(repeats, 0)
            return
        self.shared = SharedPrompt.of(self.cache, self.mask.bool(), repeats, self.fused)

    def advance(self, tokens: Tensor) -> None:
        out = self.backbone(
            inputs_embeds=self.embed(tokens[:, None]),
            position_ids=self.positions[:, None],
            use_cache=True,
            **self._attended(),
            **cache_argument(self.backbone, self.cache),
        )
        self.positions = self.positions + 1
        self.hidden = out.last_hidden_state[:, -1]

    def _attended(self) -> dict[str, Any]:
        """What the backbone takes for one token more of each row."""
        if self.shared is not None:
            return self.shared.arguments()

        # Not in the prefill, which fills the cache with one call.
        make_room(self.cache)
        self._keep_more(1)
        return {"attention_mask": self.mask}

    def lengthen(self, num: int) -> None:
        lengthen(self.cache, num)
        self._keep_more(num)
        self.positions = self.positions + num

    def _keep_more(self, num: int) -> None:
        """``num`` further tokens of each row are attended to."""
        if self.shared is None:
            more = self.mask.new_ones(len(self.mask), num)
            self.mask = torch.cat([self.mask, more], dim=1)

    def select(self, rows: Tensor) -> None:
        self.hidden = self.hidden[rows]
        self.positions = self.positions[rows]
        if self.shared is not None:
            self.shared.select(rows)
            return
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]


class DecoderOnlyPolicy(CachedPromptPolicy[PrefixT]):
    """What decoder-only families share; a family adds `encode`, `prompt` and its loading."""

    @property
    @abstractmethod
    def embed(self) -> nn.Module:
        """Token embedding of the language model."""

    @abstractmethod
    def prompt(self, context: PrefixT, side: Side) -> tuple[Tensor, Tensor]:
        """Prompt embeddings [B, P, D], padded on ``side``, and their keep mask [B, P] int64; trainable parts run."""

    def prefill(self, context: PrefixT) -> _CachedPrefix:
        # On the left, so that the last column is every prompt's last token; padding is at position 0, unseen.
        embeds, mask = self.prompt(context, "left")
        positions = (mask.cumsum(-1) - 1).clamp(min=0)

        cache = DynamicCache()
        out = self.backbone(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            **cache_argument(self.backbone, cache),
        )

        # The next token of a prompt is at the position that its length is.
        return _CachedPrefix(
            self.backbone,
            self.embed,
            hidden=out.last_hidden_state[:, -1],
            mask=mask,
            positions=mask.sum(-1),
            cache=cache,
            fused=self.fused_attention,
        )

    def packed(self, context: PrefixT, completions: Tensor) -> tuple[Layout, dict[str, Tensor]]:
        # The prompt before the completions: gradients add up in that order.
        embeds, mask = self.prompt(context, "right")
        group_size = completions.shape[1]
        return _joined(embeds, mask, self.embed(completions.flatten(1, 2)), group_size)

    # --- completions that are points between tokens

    def embedded(self, tokens: Tensor) -> Tensor:
        """Token ids [...] -> [..., D], as the language model reads them."""
        return self.embed(tokens)

    def hidden_of(self, context: PrefixT, embedded: Tensor) -> Tensor:
        """Hidden states [B*G, T + 1, D] of completions [B, G, T, D] that are given as the language model reads them."""
        embeds, mask = self.prompt(context, "right")
        group_size = embedded.shape[1]
        layout, inputs = _joined(embeds, mask, embedded.flatten(1, 2), group_size)
        return self._predicting(layout, inputs)


def _joined(
    embeds: Tensor, mask: Tensor, completions: Tensor, group_size: int
) -> tuple[Layout, dict[str, Tensor]]:
    """Prompts [B, P, D] with their keep mask, and behind them embedded completions [B, G*T, D]."""
    layout = Layout(mask.bool(), group_size, completions.shape[1] // group_size)
    return layout, {"inputs_embeds": torch.cat([embeds, completions], dim=1)}
