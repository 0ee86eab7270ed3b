"""A spoken sample carries the speaker prompt that it was made from, for judges that compare voices."""

from __future__ import annotations

from dataclasses import replace

import torch

from lightning_audiorl.engine.rollout import hypotheses
from lightning_audiorl.models import SampleKey
from lightning_audiorl.types import PromptBatch
from tests.helpers import assert_close
from tests.models.families import DECODING, batch_of, make


def without_prompt(batch: PromptBatch, index: int) -> PromptBatch:
    rows = list(batch.rows)
    rows[index] = replace(rows[index], segments=(), extra={})
    num_samples = batch.num_samples.clone()
    num_samples[index] = 0
    return replace(batch, rows=tuple(rows), num_samples=num_samples)


def test_each_group_has_its_own_prompt_and_none_where_there_was_none() -> None:
    policy, batch = make("speech_lm", "all"), without_prompt(batch_of(["a", "b", "c"]), 1)
    context = policy.encode(batch)
    rollout = policy.sample(context, 2, DECODING, SampleKey(0, 0))
    for b, group in enumerate(hypotheses(policy, batch, rollout, context)):
        assert [h.text for h in group] == ["", ""]
        for h in group:
            assert h.speech is not None
            if b == 1:
                assert h.speech.prompt is None
                continue
            assert h.speech.prompt is not None
            assert_close(h.speech.prompt, batch.waveform[b, : int(batch.num_samples[b])], "exact")
            assert h.speech.prompt_sample_rate_hz == batch.sample_rate_hz
        if b != 1:
            assert group[0].speech is not None
            assert group[1].speech is not None
            assert group[0].speech.prompt is group[1].speech.prompt  # embedded once
    assert torch.equal(batch.waveform, batch_of(["a", "b", "c"]).waveform)
