"""The naive way behind the policy interface: nothing is shared, every sample carries its own prompt and its own audio.

Each pass (rollout, reference, update) encodes each sample's clip anew and sends its whole prompt through the language
model, as frameworks do that treat a multimodal prompt as G independent rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_audiorl.models import FunAsrNanoPolicy, SampleKey, TextLMPolicy
from lightning_audiorl.models.decoding import sampling
from lightning_audiorl.models.decoding.cached_prompt import PrefixContext
from lightning_audiorl.types import Decoding, PromptBatch, Rollout


@dataclass(frozen=True)
class _Unencoded(PrefixContext):
    """Prompts as they were read."""

    batch: PromptBatch

    def to(self, device: torch.device | str, non_blocking: bool = False) -> _Unencoded:
        return self

    def tensors(self) -> list[Tensor]:
        return []

    @property
    def num_bytes(self) -> int:
        return 0

    @property
    def prompt_lengths(self) -> list[int]:
        return [0] * len(self)


class _Naive:
    """Stands before a decoder-only policy among the bases."""

    def encode(self, batch: PromptBatch) -> Any:
        durations = [row.duration_s for row in batch.rows]
        return _Unencoded(batch.ids, durations, batch)

    def _rows(self, context: PrefixContext, group_size: int) -> PrefixContext:
        """B*G prompts, each encoded for itself."""
        assert isinstance(context, _Unencoded)
        batch = context.batch.select([b for b in range(len(context)) for _ in range(group_size)])
        return super().encode(batch)  # type: ignore[misc]

    @torch.no_grad()
    def sample(
        self, context: PrefixContext, group_size: int, decoding: Decoding, key: SampleKey
    ) -> Rollout:
        assert isinstance(self, TextLMPolicy | FunAsrNanoPolicy)
        assert isinstance(context, _Unencoded)
        with self.evaluating():
            state = self.prefill(_Naive._rows(self, context, group_size))
            caps = self.caps(context, decoding)
            return sampling.sample(
                state, self.head, self.stop_ids, context.ids, group_size, caps, decoding, key
            )

    def hidden(self, context: PrefixContext, rollout: Rollout) -> Tensor:
        assert isinstance(self, TextLMPolicy | FunAsrNanoPolicy)
        prompt, mask = self.prompt(_Naive._rows(self, context, rollout.tokens.shape[1]), "left")
        tokens, keep = rollout.tokens.flatten(0, 1)[:, :-1], rollout.keep.flatten(0, 1)[:, :-1]
        mask = torch.cat([mask, keep.to(mask.dtype)], dim=1)
        states = self.backbone(
            inputs_embeds=torch.cat([prompt, self.embed(tokens)], dim=1),
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
        ).last_hidden_state
        return states[:, prompt.shape[1] - 1 :]


class NaiveTextLM(_Naive, TextLMPolicy):
    """Text prompts the naive way."""


class NaiveFunAsrNano(_Naive, FunAsrNanoPolicy):
    """Audio prompts the naive way."""
