"""A recognition policy of this library as a judge."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_audiorl.judges.base import AsrJudge, require_numbers
from lightning_audiorl.models.policy import Policy, SampleKey
from lightning_audiorl.types import Decoding, PromptBatch, Utterance


class PolicyJudge(AsrJudge):
    """A recognition policy as a judge: greedy by default.

    Args:
        policy: any that turns audio into text; frozen from now on.
        name: see Judge.
        decoding: greedy, or the sampling parameters; draws are keyed by the row's id.
        sample_rate_hz: that the policy's model wants.
        batch_size: clips per pass.
        min_duration_s: shorter speech is lengthened by silence.
    """

    def __init__(
        self,
        policy: Policy,
        name: str = "policy",
        decoding: Decoding | None = None,
        sample_rate_hz: int = 16000,
        batch_size: int = 16,
        min_duration_s: float = 0.1,
    ) -> None:
        if policy.speaks:
            raise ValueError(
                f"PolicyJudge.policy: a {type(policy).__name__} speaks; give a policy that turns audio into text"
            )
        super().__init__(name, sample_rate_hz, batch_size, min_duration_s)
        self.policy = policy
        self.decoding = decoding or Decoding(temperature=0.0)
        self.freeze()

    def listen(self, waveforms: list[Tensor], rows: list[Utterance]) -> list[str | None]:
        lengths = [len(wave) for wave in waveforms]

        # Without the text: a judge must not read what it is to recognise.
        blind = tuple(
            replace(
                row,
                segments=(),
                text="",
                spoken_text=None,
                duration_s=length / self.sample_rate_hz,
                extra={},
                keywords=(),
            )
            for row, length in zip(rows, lengths, strict=True)
        )

        batch = PromptBatch(
            pad_sequence(waveforms, batch_first=True),
            torch.tensor(lengths, device=self.device),
            self.sample_rate_hz,
            blind,
        )

        context = self.policy.encode(batch)
        rollout = self.policy.sample(context, 1, self.decoding, SampleKey(0, 0, "judge"))

        require_numbers(rollout.log_probs[rollout.keep])

        # One sample per clip; a policy that speaks gives no text.
        texts = [samples[0] for samples in self.policy.decode(rollout, context)]
        return [text if isinstance(text, str) else None for text in texts]
