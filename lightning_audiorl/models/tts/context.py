"""Encoded prompts of speech synthesis: token ids for the language model, the speaker prompt for the codec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_audiorl.models.decoding.cached_prompt import PrefixContext


@dataclass(frozen=True)
class SpeechContext(PrefixContext):
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

    ids: list[str]
    durations_s: list[float]
    tokens: list[list[int]]
    text_lengths: list[int]
    prompt_codes: list[list[int]]
    target_codes: list[list[int]]
    prompt_waveform: Tensor
    prompt_num_samples: Tensor

    def select(self, index: list[int]) -> SpeechContext:
        num_samples = self.prompt_num_samples[index]
        return SpeechContext(
            [self.ids[i] for i in index],
            [self.durations_s[i] for i in index],
            [self.tokens[i] for i in index],
            [self.text_lengths[i] for i in index],
            [self.prompt_codes[i] for i in index],
            [self.target_codes[i] for i in index],
            self.prompt_waveform[index, : int(num_samples.max())],
            num_samples,
        )

    def join(self, others: Sequence[SpeechContext]) -> SpeechContext:
        every = [self, *others]
        longest = max(context.prompt_waveform.shape[1] for context in every)
        waveforms = [nn.functional.pad(c.prompt_waveform, (0, longest - c.prompt_waveform.shape[1])) for c in every]
        return SpeechContext(
            [name for context in every for name in context.ids],
            [seconds for context in every for seconds in context.durations_s],
            [row for context in every for row in context.tokens],
            [length for context in every for length in context.text_lengths],
            [codes for context in every for codes in context.prompt_codes],
            [codes for context in every for codes in context.target_codes],
            torch.cat(waveforms),
            torch.cat([context.prompt_num_samples for context in every]),
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SpeechContext:
        return self

    def tensors(self) -> list[Tensor]:
        return []

    @property
    def num_bytes(self) -> int:
        return self.prompt_waveform.untyped_storage().nbytes() + self.prompt_num_samples.untyped_storage().nbytes()

    @property
    def prompt_lengths(self) -> list[int]:
        return [len(row) for row in self.tokens]
