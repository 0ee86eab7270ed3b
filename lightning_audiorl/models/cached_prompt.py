"""What every family with a tokenizer and a key-value cache shares: the prompt is computed once per group.

The prompt is prefilled into a cache that is then expanded to the group's samples, in the rollout as in the update.
Gradients flow through the cache.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
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


class PromptState(sampling.DecodeState, Protocol):
    """A decoder that stands after the prompts, one row each."""

    def expand(self, repeats: int) -> None:
        """Each prompt's row becomes ``repeats`` neighbouring rows."""

    def extend(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """Append ``tokens`` [rows, n], right-padded where not ``keep``; return their hidden states [rows, n, D]."""


class CachedPromptPolicy(Policy):
    """Sampling and scoring over a cached prompt; a family adds `encode`, `prefill`, `output` and its loading.

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
        """The module that writes the cache: the language model or decoder without its head."""

    @property
    @abstractmethod
    def output(self) -> nn.Module:
        """Linear layer from hidden states to logits."""

    @abstractmethod
    def prefill(self, context: PrefixContext) -> PromptState:
        """Compute the prompts once each; trainable parts of the prompt run here."""

    def caps(self, context: PrefixContext, decoding: Decoding) -> list[int]:
        """Most tokens that each prompt's completions may have."""
        return [decoding.cap(seconds) for seconds in context.durations_s]

    def _prefilled(self, context: Context, group_size: int) -> PromptState:
        assert isinstance(context, PrefixContext)
        if self.backbone.training and getattr(self.backbone, "gradient_checkpointing", False):
            raise RuntimeError(
                "the cached-prefix path loses the prompt under gradient checkpointing (transformers drops the cache "
                "in every layer); turn gradient checkpointing off"
            )
        state = self.prefill(context)
        state.expand(group_size)
        return state

    @torch.no_grad()
    def sample(self, context: Context, group_size: int, decoding: Decoding, key: SampleKey) -> Rollout:
        assert isinstance(context, PrefixContext)
        with self.evaluating():
            state = self._prefilled(context, group_size)
            caps = self.caps(context, decoding)
            return sampling.sample(state, self.head, self.stop_ids, context.ids, group_size, caps, decoding, key)

    def hidden(self, context: Context, rollout: Rollout) -> Tensor:
        state = self._prefilled(context, rollout.tokens.shape[1])
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
