"""How long speech may get, and what a speaker prompt must be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_audiorl.checks import check_number
from lightning_audiorl.types import PromptBatch, Utterance


@dataclass(frozen=True)
class SpeechLimits:
    """Bounds of a policy that speaks.

    Two caps hold on a completion, stop token included, and the lower one counts: ``Decoding.cap`` of the row's expected
    duration, and ``min_cap + tokens_per_char * characters`` of its text. The model's own context is a third.

    Example:
        >>> SpeechLimits(tokens_per_char=4, min_cap=10).cap(num_characters=20)
        90
        >>> SpeechLimits().cap(num_characters=20) is None
        True

    Args:
        tokens_per_char: of the cap by text length; 0 turns that cap off.
        min_cap: constant part of that cap, in tokens.
        min_prompt_s, max_prompt_s: length of a speaker prompt in seconds.
        min_prompt_dbfs: a speaker prompt whose root mean square is below this level (0 is full scale) is silent.
        codec_batch_size: most clips that the codec encodes or decodes at once, neighbours in length.
    """

    tokens_per_char: float = 0.0
    min_cap: int = 16
    min_prompt_s: float = 0.2
    max_prompt_s: float = 30.0
    min_prompt_dbfs: float = -60.0
    codec_batch_size: int = 32

    def __post_init__(self) -> None:
        check_number("SpeechLimits.tokens_per_char", self.tokens_per_char)
        check_number("SpeechLimits.min_prompt_dbfs", self.min_prompt_dbfs, infinite=True)
        if self.tokens_per_char < 0 or min(self.min_cap, self.codec_batch_size) < 1:
            raise ValueError(
                "SpeechLimits: want tokens_per_char >= 0, min_cap >= 1, codec_batch_size >= 1; got "
                f"{self.tokens_per_char}, {self.min_cap}, {self.codec_batch_size}"
            )
        if not 0 <= self.min_prompt_s <= self.max_prompt_s:
            raise ValueError(
                f"SpeechLimits: want 0 <= min_prompt_s <= max_prompt_s; got {self.min_prompt_s}, {self.max_prompt_s}"
            )

    def cap(self, num_characters: int) -> int | None:
        """Most tokens for a text of so many characters, stop token included; None without such a cap."""
        if not self.tokens_per_char:
            return None
        return self.min_cap + int(self.tokens_per_char * num_characters)

    def capped(
        self,
        caps: Sequence[int],
        text_lengths: Sequence[int],
        prompt_lengths: Sequence[int],
        max_positions: int,
    ) -> list[int]:
        """Caps of B completions, lowered by what their texts and the model's context allow.

        Example:
            >>> SpeechLimits(tokens_per_char=2, min_cap=1).capped([20, 20], [4, 50], [5, 90], max_positions=100)
            [9, 10]

        Args:
            caps: of each prompt, in tokens.
            text_lengths: characters of each text.
            prompt_lengths: tokens of each prompt.
            max_positions: most tokens of prompt and completion.
        """
        lowest = []
        for cap, text, prompt in zip(caps, text_lengths, prompt_lengths, strict=True):
            by_text = self.cap(text) or cap
            lowest.append(min(cap, by_text, max_positions - prompt))
        return lowest

    def check_prompts(self, batch: PromptBatch, sample_rate_hz: int) -> None:
        """See that the batch's speaker prompts can be encoded.

        Raises:
            ValueError: for another sample rate than the codec's; for a prompt that is empty, too short, too long,
                silent or not finite, naming its row.
        """
        if batch.sample_rate_hz != sample_rate_hz:
            raise ValueError(
                f"the codec wants {sample_rate_hz} Hz audio, got {batch.sample_rate_hz}; set sample_rate_hz of the "
                "data module"
            )
        for row, clip, num_samples in zip(
            batch.rows, batch.waveform, batch.num_samples.tolist(), strict=True
        ):
            self._check_prompt(row, clip[:num_samples], sample_rate_hz)

    def _check_prompt(self, row: Utterance, clip: Tensor, sample_rate_hz: int) -> None:
        # A row may have no speaker prompt at all, but not one without a sample.
        if len(clip) == 0:
            if row.segments:
                raise ValueError(
                    f"row {row.id!r}: the audio of its speaker prompt is empty; remove or replace it"
                )
            return

        seconds = len(clip) / sample_rate_hz
        if not self.min_prompt_s <= seconds <= self.max_prompt_s:
            raise ValueError(
                f"row {row.id!r}: a speaker prompt of {seconds:.3f} s; this policy takes {self.min_prompt_s} to "
                f"{self.max_prompt_s} s; give another prompt, or set policy.init_args.limits (min_prompt_s, "
                "max_prompt_s) where the model can do with it"
            )

        # Compared so that a level that is not a number is refused, too.
        power = float(clip.float().square().mean())
        level = -math.inf
        if power != 0:
            level = 10 * math.log10(power)
        if not self.min_prompt_dbfs <= level < math.inf:
            raise ValueError(
                f"row {row.id!r}: its speaker prompt is silent or not finite ({level:.0f} dBFS; at least "
                f"{self.min_prompt_dbfs} is wanted, policy.init_args.limits.min_prompt_dbfs); choose another prompt"
            )
