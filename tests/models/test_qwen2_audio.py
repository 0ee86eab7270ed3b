"""Qwen2-Audio: frames of whole windows, instructions, and what the family would do without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl import outline
from lightning_audiorl.models import Qwen2AudioPolicy, TinyQwen2Audio
from lightning_audiorl.models.asr.qwen2_audio import INSTRUCTION
from tests.models.families import SPECS, batch_of, make, random_rollout
from tests.models.naive import naive_log_probs


def own_frames(policy: Any, batch: Any) -> list[Tensor]:
    """What the family's encoder makes of whole windows."""
    inner = policy.model.model
    seen: list[Tensor] = []
    handle = inner.multi_modal_projector.register_forward_pre_hook(
        lambda module, args: seen.append(args[0][0])
    )
    try:
        naive_log_probs("qwen2_audio", policy, batch, random_rollout(policy, len(batch), 1))
    finally:
        handle.remove()
    return seen


@torch.no_grad()
def test_frames_are_those_of_whole_windows() -> None:
    """From the shortest clip to a whole window, odd numbers of windows among them."""
    policy = make("qwen2_audio")
    durations_s = [0.0601, 0.07, 0.075, 0.085, 0.5, 1.9, 1.999, 2.0]
    batch = batch_of(list("abcdefgh"), durations_s)
    whole = own_frames(policy, batch)
    for one_by_one in (False, True):
        for b in range(len(batch)):
            rows = [b] if one_by_one else list(range(len(batch)))
            context = policy.encode(batch.select(rows))
            at = rows.index(b)
            num = int(context.num_frames[at])
            frames = context.features[at]
            torch.testing.assert_close(frames[:num], whole[b][:num], atol=2e-5, rtol=0)
            assert not frames[num:].any()
    assert policy.encode(batch).num_frames.tolist() == [2, 2, 2, 2, 12, 47, 50, 50]


def test_clips_beyond_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match=r"row 'a': 2\.100 s of audio; this model takes 0\.060 to"):
        make("qwen2_audio").encode(batch_of(["a"], [2.1]))


def asked(policy: Qwen2AudioPolicy, lang: str = "en") -> str:
    return policy.tokenizer.decode(policy.request_tokens(lang))


def test_the_instruction_is_asked() -> None:
    spec = TinyQwen2Audio(("one", "two", "German", "tlh"), width=32, heads=2, chunk_length_s=2)
    around = "<|im_start|> <|object_ref_start|>{}<|im_start|>"
    assert Qwen2AudioPolicy(spec).instruction == INSTRUCTION
    assert asked(Qwen2AudioPolicy(spec, instruction=" two ")) == around.format(" two ")
    assert asked(Qwen2AudioPolicy(spec, instruction="")) == around.format(" ")

    policy = Qwen2AudioPolicy(spec, instruction=" one {language} ")
    assert asked(policy, "de") == around.format(" one German ")
    batch = batch_of(["a", "b"])
    for row, lang in zip(batch.rows, ("ger", "tlh"), strict=True):
        object.__setattr__(row, "lang", lang)
    tokens = policy.encode(batch).tokens
    assert [policy.tokenizer.decode(row[-2]) for row in tokens] == ["German", "tlh"]


def test_a_template_may_have_an_instruction_of_its_own(tmp_path: Path) -> None:
    model, processor = SPECS["qwen2_audio"].build()
    model.save_pretrained(tmp_path)
    processor.chat_template = (
        "{% set parts = messages[0]['content'] %}<|object_ref_start|> "
        "{% if parts | length == 1 %}two{% else %}{{ parts[1]['text'] }}{% endif %}"
    )
    processor.save_pretrained(tmp_path)
    policy = Qwen2AudioPolicy(str(tmp_path))
    assert policy.instruction is None
    assert asked(policy) == "<|object_ref_start|> two"
    assert asked(Qwen2AudioPolicy(str(tmp_path), instruction="one")) == "<|object_ref_start|> one"


def test_an_audio_token_of_another_model_is_refused(tmp_path: Path) -> None:
    model, processor = SPECS["qwen2_audio"].build()
    model.config.audio_token_index = 7
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="audio token of its processor is 3, and its model wants 7"
    ):
        Qwen2AudioPolicy(str(tmp_path))


def test_the_example_of_a_plan_has_the_sizes_of_a_clip() -> None:
    policy = make("qwen2_audio")
    for seconds in (0.061, 0.5, 0.99, 1.0, 2.0):
        real = policy.encode(batch_of(["a"], [seconds]))
        planned = policy.example_context(1, seconds)
        assert planned.features.shape == real.features.shape
        assert planned.num_frames.tolist() == real.num_frames.tolist()
    for seconds in (0.05, 2.1):
        with pytest.raises(ValueError, match="the encoder takes 7 to 200"):
            policy.example_context(1, seconds)

    with outline.outlines():
        drawn = Qwen2AudioPolicy(SPECS["qwen2_audio"])
        with torch.device("meta"):
            assert drawn.example_context(2, 1.0).features.shape == (2, 25, 32)
