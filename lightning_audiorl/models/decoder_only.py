"""Policies whose language model reads the prompt and its continuation in one stream (FunAsrNano, Llasa, ...).

The prompt is computed once per group: prefilled into a cache that is then expanded to the group's samples, in the
rollout as in the update. Gradients flow through the cache.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lightning_audiorl.models import sampling
from lightning_audiorl.models.policy import Context, Policy, SampleKey
from lightning_audiorl.models.tokens import decode_groups, target_rollout
from lightning_audiorl.types import Decoding, Rollout


class PrefixContext(Context):
    """A context that knows its prompts' ids and the length of what they ask for."""

    ids: list[str]
    durations_s: list[float]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class _CachedPrefix:
    """Decoder state after a left-padded prompt: see `sampling.DecodeState`."""

    backbone: nn.Module
    embed: nn.Module
    hidden: Tensor
    mask: Tensor
    positions: Tensor
    cache: DynamicCache = field(default_factory=DynamicCache)

    def expand(self, repeats: int) -> None:
        """Each prompt's row becomes ``repeats`` neighbouring rows."""
        if repeats > 1:
            self.cache.batch_repeat_interleave(repeats)
        self.hidden = self.hidden.repeat_interleave(repeats, 0)
        self.mask = self.mask.repeat_interleave(repeats, 0)
        self.positions = self.positions.repeat_interleave(repeats, 0)

    def extend(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """Append ``tokens`` [rows, n]; return their hidden states [rows, n, D]."""
        num = tokens.shape[1]
        new = torch.ones_like(tokens) if keep is None else keep.to(self.mask.dtype)
        self.mask = torch.cat([self.mask, new], dim=1)
        positions = self.positions[:, None] + torch.arange(num, device=tokens.device)
        self.positions = self.positions + num
        return self.backbone(
            inputs_embeds=self.embed(tokens),
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state

    def advance(self, tokens: Tensor) -> None:
        self.hidden = self.extend(tokens[:, None])[:, -1]

    def select(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.hidden, self.mask, self.positions = self.hidden[rows], self.mask[rows], self.positions[rows]


class DecoderOnlyPolicy(Policy):
    """What decoder-only families share; a family adds `encode`, `prompt` and its loading.

    Attributes:
        tokenizer: of the text (and special) tokens.
        stop_ids: tokens that end a completion; the first one ends training targets.
        allowed: [V] bool buffer, the tokens that may be sampled.
    """

    tokenizer: PreTrainedTokenizerBase
    stop_ids: list[int]
    allowed: Tensor

    @property
    @abstractmethod
    def backbone(self) -> nn.Module:
        """The language model without its head; called with ``inputs_embeds`` and a cache."""

    @property
    @abstractmethod
    def embed(self) -> nn.Module:
        """Token embedding of the language model."""

    @property
    @abstractmethod
    def output(self) -> nn.Module:
        """Linear layer from hidden states to logits."""

    @abstractmethod
    def prompt(self, context: PrefixContext) -> tuple[Tensor, Tensor]:
        """Left-padded prompt embeddings [B, P, D] and their keep mask [B, P] int64; trainable parts run here."""

    def _prefill(self, context: PrefixContext) -> _CachedPrefix:
        if self.training and getattr(self.backbone, "gradient_checkpointing", False):
            raise RuntimeError(
                "the cached-prefix path loses the prompt under gradient checkpointing (transformers drops the cache "
                "in every layer); turn gradient checkpointing off"
            )
        embeds, mask = self.prompt(context)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache()
        out = self.backbone(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        return _CachedPrefix(self.backbone, self.embed, out.last_hidden_state[:, -1], mask, mask.sum(-1), cache)

    @torch.no_grad()
    def sample(self, context: Context, group_size: int, decoding: Decoding, key: SampleKey) -> Rollout:
        assert isinstance(context, PrefixContext)
        with self.evaluating():
            state = self._prefill(context)
            state.expand(group_size)
            caps = [decoding.cap(seconds) for seconds in context.durations_s]
            return sampling.sample(
                state, self.head, self.stop_ids, context.ids, group_size, caps, decoding, key
            )

    def hidden(self, context: Context, rollout: Rollout) -> Tensor:
        assert isinstance(context, PrefixContext)
        state = self._prefill(context)
        state.expand(rollout.tokens.shape[1])
        first = state.hidden[:, None]
        inputs = rollout.tokens.flatten(0, 1)[:, :-1]
        if inputs.shape[1] == 0:
            return first
        return torch.cat([first, state.extend(inputs, rollout.keep.flatten(0, 1)[:, :-1])], dim=1)

    def head(self, hidden: Tensor) -> Tensor:
        return self.output(hidden).masked_fill(~self.allowed, -torch.inf)

    def decode(self, rollout: Rollout, context: Context) -> list[list[str]]:
        return decode_groups(self.tokenizer, rollout)

    def targets(self, context: Context, texts: Sequence[str]) -> Rollout:
        assert isinstance(context, PrefixContext)
        return target_rollout(self.tokenizer, self.allowed, context.ids, texts, self.stop_ids[0])
