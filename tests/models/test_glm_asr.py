"""GLM-ASR: windows that follow each other, and where its processor would cut."""

from __future__ import annotations

import pytest
import torch

from lightning_audiorl.models import GlmAsrPolicy, TinyGlmAsr
from tests.helpers import assert_close
from tests.models.families import batch_of, clip, log_probs, make, random_rollout
from tests.models.naive import naive_log_probs


@pytest.mark.fault(
    "Audio",
    "a clip longer than GLM-ASR's processor takes, which it cuts at 630 s and speaks of 655",
    "refused by its row's name, before the processor sees it",
)
def test_the_longest_clip_is_whole_windows() -> None:
    spec = TinyGlmAsr(width=16, heads=2, encoder_layers=1, lm_layers=1, chunk_length_s=30)
    policy = GlmAsrPolicy(TinyGlmAsr(**{**vars(spec), "max_positions": 8192}))
    assert policy.processor.max_audio_len == 655
    assert policy.clip_span_s[1] == 630
    short = make("glm_asr")
    with pytest.raises(
        ValueError, match=r"row 'a': 10\.500 s of audio; this model takes 0\.060 to 10"
    ):
        short.encode(batch_of(["a"], [10.5]))


def test_a_clip_of_several_windows_is_what_its_class_makes_of_it() -> None:
    """Beside a clip of one window, and one that ends within the first frames of its second."""
    policy = make("glm_asr")
    batch = batch_of(["a", "b", "c"], [0.7, 5.3, 2.01])
    assert [policy.padded_s(row.duration_s) for row in batch.rows] == [2, 6, 4]
    context = policy.encode(batch)
    for tokens, name, seconds in zip(context.tokens, "abc", (0.7, 5.3, 2.01), strict=True):
        own = policy.processor.apply_transcription_request(clip(name, seconds).numpy())
        assert own["input_ids"][0].tolist() == tokens
    rollout = random_rollout(policy, 3, 2)
    with torch.no_grad():
        own = naive_log_probs("glm_asr", policy, batch, rollout)
        assert_close(log_probs(policy, context, rollout)[rollout.keep], own[rollout.keep], "policy")


def test_the_instruction_is_the_processors_or_the_users() -> None:
    spec = make("glm_asr").start.source
    policy = GlmAsrPolicy(spec, instruction="one {language} two")
    (tokens,) = policy.encode(batch_of(["a"])).tokens
    assert policy.tokenizer.convert_ids_to_tokens(tokens)[-4:] == [
        "one",
        "<|unk|>",
        "two",
        "<|im_start|>",
    ]
