"""What every family with a tokenizer and a key-value cache shares: the prompt is computed once per group.

In the rollout the prompt is prefilled into a cache, which is then expanded to the group's samples. The update and the
reference put the prompt and its completions into one row (`shared_prefix`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lightning_audiorl.fields import PerPrompt
from lightning_audiorl.models.decoding import sampling
from lightning_audiorl.models.decoding.shared_prefix import Layout, packed_arguments
from lightning_audiorl.models.decoding.tokens import decode_groups, target_rollout
from lightning_audiorl.models.policy import Context, Policy, SampleKey
from lightning_audiorl.types import Decoding, Rollout


@dataclass(frozen=True)
class PrefixContext(Context):
    """A context that knows its prompts' ids and the length of what they ask for."""

    ids: PerPrompt[list[str]]
    durations_s: PerPrompt[list[float]]

    def __len__(self) -> int:
        return len(self.ids)


PrefixT = TypeVar("PrefixT", bound=PrefixContext)


class PromptState(sampling.DecodeState, Protocol):
    """A decoder that stands after the prompts, one row each."""

    def expand(self, repeats: int) -> None:
        """Each prompt's row becomes ``repeats`` neighbouring rows."""

    def lengthen(self, num: int) -> None:
        """Take up the room of ``num`` tokens more, without their values: for plans of memory alone."""


class CachedPromptPolicy(Policy[PrefixT]):
    """Sampling and scoring over a shared prompt; a family adds `encode`, `prefill`, `packed`, `output`, its loading.

    Attributes:
        tokenizer: of the text (and special) tokens.
        stop_ids: tokens that end a completion; the first one ends training targets.
        allowed: [V] bool buffer, the tokens that may be sampled.
        usual_tokens_per_second: of the length cap, where a `Decoding` gives none.
        fused_attention: see `Layout.fused`.
    """

    tokenizer: PreTrainedTokenizerBase
    stop_ids: list[int]
    allowed: Tensor
    usual_tokens_per_second: float = 15.0
    fused_attention: bool | None = None

    @property
    @abstractmethod
    def backbone(self) -> nn.Module:
        """The language model or decoder without its head; it went through `share_prefix`."""

    @property
    @abstractmethod
    def output(self) -> nn.Module:
        """Linear layer from hidden states to logits."""

    @abstractmethod
    def prefill(self, context: PrefixT) -> PromptState:
        """Compute the prompts once each, without gradients."""

    @abstractmethod
    def packed(self, context: PrefixT, completions: Tensor) -> tuple[Layout, dict[str, Tensor]]:
        """Rows of a prompt and its ``completions`` [B, G, T]; trainable parts of the prompt run here.

        Returns:
            The layout, and what the backbone takes beside `packed_arguments`.
        """

    def caps(self, context: PrefixT, decoding: Decoding) -> list[int]:
        """Most tokens that each prompt's completions may have."""
        return [
            decoding.cap(seconds, self.usual_tokens_per_second) for seconds in context.durations_s
        ]

    @torch.no_grad()
    def sample(
        self, context: PrefixT, group_size: int, decoding: Decoding, key: SampleKey
    ) -> Rollout:
        with self.evaluating():
            state = self.prefill(context)
            state.expand(group_size)
            caps = self.caps(context, decoding)
            return sampling.sample(
                state, self.head, self.stop_ids, context.ids, group_size, caps, decoding, key
            )

    def hidden(self, context: PrefixT, rollout: Rollout) -> Tensor:
        return self._predicting(*self.packed(context, rollout.tokens[:, :, :-1]))

    def _predicting(self, layout: Layout, inputs: dict[str, Tensor]) -> Tensor:
        """[B*G, T + 1, D] states of packed rows."""
        layout = replace(layout, fused=self.fused_attention)
        return layout.predicting(
            self.backbone(**inputs, **packed_arguments(layout)).last_hidden_state
        )

    def head(self, hidden: Tensor) -> Tensor:
        logits = self.output(hidden)
        # Added rather than filled in: nothing is copied, and the gradient passes (where -inf stands it is 0 anyway).
        return logits.add_(
            torch.zeros_like(self.allowed, dtype=logits.dtype).masked_fill_(
                ~self.allowed, -torch.inf
            )
        )

    def decode(self, rollout: Rollout, context: PrefixT) -> list[list[str]]:
        return decode_groups(self.tokenizer, rollout)

    def targets(self, context: PrefixT, texts: Sequence[str]) -> Rollout:
        return target_rollout(self.tokenizer, self.allowed, context.ids, texts, self.stop_ids[0])
