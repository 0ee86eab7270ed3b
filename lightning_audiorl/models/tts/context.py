"""Encoded prompts of speech synthesis: token ids for the language model, the speaker prompt for the codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from lightning_audiorl.fields import PerPrompt, Shape
from lightning_audiorl.models.decoding.cached_prompt import PrefixContext


@dataclass(frozen=True)
class TextContext(PrefixContext):
    """B prompts as token ids.

    Args:
        ids, durations_s: of the prompts.
        tokens: B prompts.
    """

    tokens: PerPrompt[list[list[int]]]

    @property
    def prompt_lengths(self) -> list[int]:
        return [len(row) for row in self.tokens]


@dataclass(frozen=True)
class SpeechContext(TextContext):
    """B prompts of text and speaker prompt.

    The speaker prompts' audio stays in host memory: only a codec's decoder may want it, in the reward phase.

    Args:
        ids: of the rows.
        durations_s: expected lengths of the speech, in seconds.
        tokens: B prompts as token ids.
        text_lengths: characters of each text to be spoken.
        prompt_codes: B speaker prompts in codes; empty where a row has none.
        target_codes: B recordings of the texts in codes; empty where a row has none.
        prompt_waveform: [B, S] float32 speaker prompts, zeros after a prompt's end.
        prompt_num_samples: [B].
    """

    text_lengths: PerPrompt[list[int]]
    prompt_codes: PerPrompt[list[list[int]]]
    target_codes: PerPrompt[list[list[int]]]
    prompt_waveform: Annotated[
        Tensor, Shape("B S", pad="S", lengths="prompt_num_samples", on_host=True)
    ]
    prompt_num_samples: Annotated[Tensor, Shape("B", on_host=True)]
