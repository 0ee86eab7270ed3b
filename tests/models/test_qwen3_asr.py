"""What Qwen3-ASR's own classes do to a clip beside others and to a loop, and what the policy makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_audiorl.metrics.functional import align
from lightning_audiorl.models import Qwen3ASRPolicy, SampleKey
from lightning_audiorl.models.decoding.tokens import targets_of
from lightning_audiorl.rewards import Accuracy, Hallucination
from lightning_audiorl.types import Hypothesis, PromptBatch
from tests.helpers import assert_close
from tests.models.families import DECODING, SPECS, batch_of, clip, log_probs, make

KEY = SampleKey(seed=5, rl_step=2)
SAMPLES = [16_080, 17_360]


def seconds(num_samples: int) -> float:
    """Beyond the sample's beginning, so that rounding loses none."""
    return (num_samples + 0.5) / 16_000


def batch_of_samples(samples: list[int]) -> PromptBatch:
    """Clips by their numbers of samples; a clip of a number is always the same."""
    names = [str(num) for num in samples]
    batch = batch_of(names, [seconds(num) for num in samples])
    assert batch.num_samples.tolist() == samples
    return batch


@pytest.mark.fault(
    "Audio",
    "clips of lengths that Qwen3-ASR's processor counts one frame more for beside a longer clip",
    "prompts, hypotheses and log-probs are those of the clip alone",
)
def test_a_clip_beside_a_longer_one_is_the_clip_alone() -> None:
    policy = make("qwen3_asr")
    together = policy.encode(batch_of_samples([*SAMPLES, 40_000]))
    rollout = policy.sample(together, 3, DECODING, KEY)
    with torch.no_grad():
        scored = log_probs(policy, together, rollout)
    for i, num in enumerate(SAMPLES):
        alone = policy.encode(batch_of_samples([num]))
        assert alone.tokens == together.tokens[i : i + 1]
        mine = policy.sample(alone, 3, DECODING, KEY)
        assert policy.decode(mine, alone)[0] == policy.decode(rollout, together)[i]
        with torch.no_grad():
            again = log_probs(policy, alone, rollout.select([i]))
        assert_close(again[0], scored[i, :, : again.shape[-1]], "policy")

    # What its own processor makes of the same batch: the reason for all this.
    waves = [clip(str(num), seconds(num)).numpy() for num in (*SAMPLES, 40_000)]
    own = policy.processor.apply_transcription_request(waves, language="en")
    in_batch = (own["input_ids"] == policy.audio_token_id).sum(-1).tolist()
    by_itself = [tokens.count(policy.audio_token_id) for tokens in together.tokens]
    assert [more - num for more, num in zip(in_batch, by_itself, strict=True)] == [1, 1, 0]


@pytest.mark.fault(
    "Text",
    "Qwen3-ASR says a word sixty times, which its processor's parsing takes for one",
    "sixty words, to the reward and the metrics",
)
def test_a_loop_is_a_loop() -> None:
    policy = make("qwen3_asr")
    word = policy.tokenizer.convert_tokens_to_ids("one")
    context = policy.encode(batch_of(["a"]))
    rollout = targets_of([[word] * 60 + [2]], fill=2, device=torch.device("cpu"))
    ((text,),) = policy.decode(rollout, context)
    assert text.split() == ["one"] * 60
    parsed = policy.processor.decode(rollout.tokens[0, 0], return_format="transcription_only")
    assert len(parsed.split()) < 3

    row = replace(batch_of(["a"]).rows[0], text="one")
    said = Hypothesis(row, text)
    assert Accuracy().score([said]) == [1 - 59]
    assert Hallucination().score([said]) == [-1]
    assert align("one", text).insertions == 59


def test_the_language_of_a_row_is_in_its_prompt_or_written_by_the_model() -> None:
    policy = make("qwen3_asr")
    batch = batch_of(["a", "b", "c"])
    langs = ("en", "zh-CN", "eo")
    rows = [replace(row, lang=lang) for row, lang in zip(batch.rows, langs, strict=True)]
    context = policy.encode(replace(batch, rows=tuple(rows)))
    ends = [policy.tokenizer.convert_ids_to_tokens(tokens[-3:]) for tokens in context.tokens]
    assert ends[0] == ["language", "English", "<asr_text>"]
    assert ends[1] == ["language", "Chinese", "<asr_text>"]
    assert "<asr_text>" not in ends[2]

    # Where it is not said, a text to learn from begins as the published recipe has it, and ends a turn.
    targets = policy.targets(context, ["one", "two", "three"])
    assert targets.lengths.tolist() == [[2], [2], [5]]
    unsaid = policy.tokenizer.convert_ids_to_tokens(targets.tokens[2, 0].tolist())
    assert unsaid == ["language", "None", "<asr_text>", "three", "<|im_end|>"]
    assert policy.decode(targets, context) == [["one"], ["two"], ["three"]]


def test_a_clip_shorter_than_the_extractors_least_is_padded_as_it_does() -> None:
    policy = make("qwen3_asr")
    short, padded = policy.encode(batch_of_samples([100])), policy.encode(batch_of_samples([8000]))
    assert short.prompt_lengths == padded.prompt_lengths
    assert short.num_frames.tolist() == [7]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("chat_template.jinja", "", None, "chat template is missing or broken"),
        ("chat_template.jinja", "<|audio_pad|>", "", "has not one place for the audio"),
        ("tokenizer.json", "<asr_text>", "<text>", "has no token <asr_text>"),
        ("processor_config.json", '"n_window": 50', '"n_window": 25', "n_window .* is 25, .* 50"),
        ("processor_config.json", '"feature_size": 16', '"feature_size": 8', "feature_size .* 8"),
    ],
)
def test_a_processor_that_is_not_the_models_is_refused(
    file: str, old: str, new: str | None, message: str, tmp_path: Path
) -> None:
    model, processor = SPECS["qwen3_asr"].build()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    path = tmp_path / file
    if new is None:
        path.unlink()
    else:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        Qwen3ASRPolicy(str(tmp_path))


def test_a_vocabulary_of_its_own_is_no_folder_of_another_family(tmp_path: Path) -> None:
    model, processor = SPECS["fun_asr_nano"].build()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a 'fun_asr_nano', which FunAsrNanoPolicy takes"):
        Qwen3ASRPolicy(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "fun_asr_nano"
