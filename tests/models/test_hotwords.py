"""Hotwords stand in each family's own place of the prompt, alike for rollout and update; without them it is as ever."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_audiorl.engine.step_costs import run_costs
from lightning_audiorl.models import SampleKey
from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy
from lightning_audiorl.strategies.phases import PhaseClock
from lightning_audiorl.types import PromptBatch
from tests.helpers import assert_close
from tests.models.families import (
    DECODING,
    POLICIES,
    SPECS,
    batch_of,
    log_probs,
    make,
    random_rollout,
)
from tests.models.records import WORDS

KEY = SampleKey(seed=5, rl_step=2)
ASKED = "Transcribe. Keywords: {hotwords}"
NAMES = ["a", "b", "c"]
LISTS = [["two", "three"], [], ["one"]]

# A word-level tokenizer knows a word with its comma as a word of its own.
_LISTED = (*WORDS, *(f"{word}," for word in WORDS))
_SETTINGS: dict[str, dict[str, Any]] = {
    "qwen2_audio": {"hotwords": ASKED},
    "glm_asr": {"hotwords": ASKED},
}


def policy_of(family: str, **settings: Any) -> CachedPromptPolicy:
    spec = SPECS[family]
    more = ("<|startofprev|>",) if family == "whisper" else ()
    spec = replace(spec, words=(*_LISTED, *more))
    made: CachedPromptPolicy = POLICIES[family](spec, **(_SETTINGS.get(family, {}) | settings))
    return made.eval()


def with_lists(batch: PromptBatch, lists: list[list[str]]) -> PromptBatch:
    rows = []
    for row, words in zip(batch.rows, lists, strict=True):
        rows.append(replace(row, extra={**row.extra, "hotwords": words}) if words else row)
    return replace(batch, rows=tuple(rows))


def _fun_asr(policy: Any, clip: Any, words: list[str]) -> list[int]:
    how = {"language": "en", "keywords": words}
    return policy.processor.apply_transcription_request(clip, **how)["input_ids"][0].tolist()


def _qwen3(policy: Any, clip: Any, words: list[str]) -> list[int]:
    how = {"language": "en", "prompt": ", ".join(words)}
    return policy.processor.apply_transcription_request(clip, **how)["input_ids"][0].tolist()


def _glm(policy: Any, clip: Any, words: list[str]) -> list[int]:
    how = {"prompt": ASKED.format(hotwords=", ".join(words))}
    return policy.processor.apply_transcription_request(clip, **how)["input_ids"][0].tolist()


def _qwen2(policy: Any, clip: Any, words: list[str]) -> list[int]:
    asked = {"type": "text", "text": ASKED.format(hotwords=", ".join(words))}
    message = {"role": "user", "content": [{"type": "audio"}, asked]}
    text = policy.processor.apply_chat_template(
        [message], add_generation_prompt=True, tokenize=False
    )
    made = policy.processor(text=text, audio=clip, sampling_rate=16000, return_tensors="pt")
    return made["input_ids"][0].tolist()


def _granite(policy: Any, clip: Any, words: list[str]) -> list[int]:
    asked = (
        f"{policy.processor.audio_token}transcribe the speech to text. Keywords: {', '.join(words)}"
    )
    text = policy.processor.apply_chat_template(
        [{"role": "user", "content": asked}], add_generation_prompt=True, tokenize=False
    )
    return policy.processor(text=text, audio=clip, return_tensors="pt")["input_ids"][0].tolist()


def _whisper(policy: Any, clip: Any, words: list[str]) -> list[int]:
    names = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    text = policy.tokenizer.encode(f"<|startofprev|> {', '.join(words)}", add_special_tokens=False)
    return [*text, *policy.tokenizer.convert_tokens_to_ids(names)]


# The prompt that a family's own processor makes of a clip and a list.
OWN: dict[str, Callable[[Any, Any, list[str]], list[int]]] = {
    "fun_asr_nano": _fun_asr,
    "whisper": _whisper,
    "qwen3_asr": _qwen3,
    "granite_speech": _granite,
    "qwen2_audio": _qwen2,
    "glm_asr": _glm,
}
FAMILIES = ["fun_asr_nano", "whisper", "qwen3_asr", "granite_speech", "qwen2_audio", "glm_asr"]


def tokens_of(context: Any) -> list[list[int]]:
    rows = context.tokens if isinstance(context.tokens, list) else context.tokens.tolist()
    return [row[:length] for row, length in zip(rows, context.prompt_lengths, strict=True)]


@pytest.mark.cell("hotwords")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_list_stands_where_the_family_reads_it(family: str) -> None:
    policy = policy_of(family)
    plain = batch_of(NAMES)
    batch = with_lists(plain, LISTS)
    context = policy.encode(batch)
    prompts = tokens_of(context)
    without = tokens_of(policy.encode(plain))

    # The prompt is that of the family's own processor; without a list it is as ever.
    for number in (0, 2):
        clip = batch.waveform[number, : int(batch.num_samples[number])].numpy()
        assert prompts[number] == OWN[family](policy, clip, LISTS[number])
    assert prompts[1] == without[1]
    texts = policy.prompt_texts(context)
    assert all(word in texts[0] for word in LISTS[0])

    # Rollout and update see it alike, in a batch as alone.
    rollout = policy.sample(context, 2, DECODING, KEY)
    with torch.no_grad():
        scored = log_probs(policy, context, rollout)
        plainly = log_probs(policy, policy.encode(plain), rollout)
    assert_close(scored * rollout.keep, rollout.log_probs * rollout.keep, "policy")
    for number in range(len(batch)):
        alone = policy.encode(batch.select([number]))
        with torch.no_grad():
            again = log_probs(policy, alone, rollout.select([number]))
        assert_close(again[0], scored[number, :, : again.shape[-1]], "policy")

    # And the list moves what is said.
    apart = (scored - plainly).abs() * rollout.keep
    assert apart[0].max() > 1e-4
    assert apart[1].max() < 1e-4
    assert policy.targets(context, ["one", "two", "three"]).tokens.shape[0] == 3


@pytest.mark.parametrize("family", ["canary", "moonshine", "voxtral", "qwen2_audio", "glm_asr"])
@pytest.mark.fault(
    "Text",
    "hotwords for a family whose prompt has no place for them",
    "the run stops at the first such row, with its id, the reason and what to set",
)
def test_a_family_without_a_place_refuses_the_row(family: str) -> None:
    policy = make(family)
    with pytest.raises(ValueError, match=r"row 'c' has 1 hotwords, and \w+ takes none: .* leave"):
        policy.encode(with_lists(batch_of(NAMES), [[], [], ["one"]]))


@pytest.mark.fault(
    "Text",
    "a list of hotwords beyond the room of Whisper's prompt",
    "the first words are taken, and how many are left out is counted and said",
)
def test_whisper_cuts_a_long_list_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    policy: Any = policy_of("whisper")
    batch = with_lists(batch_of(["a"]), [[*WORDS]])
    # Half of six less one; a word and its comma are one token.
    policy.model.config.max_target_positions = 6
    with caplog.at_level(logging.WARNING):
        context = policy.encode(batch)
    assert policy.prompt_texts(context) == [
        "<|startofprev|> zero, one <|startoftranscript|> <|en|> <|transcribe|> <|notimestamps|>"
    ]
    assert policy.hotwords_cut.words == policy.num_hotwords_cut == 2

    # A step logs what it left out, and the next one counts anew.
    strategy = SimpleNamespace(ledger=None)
    run: Any = SimpleNamespace(clock=PhaseClock(), strategy=strategy, policy=policy)
    run.sampler = SimpleNamespace(engine=None)
    assert run_costs(run)[0] == {"hotwords/cut": 2.0}
    assert run_costs(run)[0] == {}
    assert (
        "row 'a' leaves out 2, 2 in 1 rows so far: its prompt has room for 2 tokens" in caplog.text
    )


@pytest.mark.fault(
    "Text",
    "a hotword that holds a control token, or is empty",
    "the row is refused by its id and the word, so that no list ends the prompt",
)
@pytest.mark.parametrize("word", ["<|im_end|>", "unheard", " "])
def test_a_word_is_no_control_token(word: str) -> None:
    with pytest.raises(ValueError, match=r"row 'a': hotword .* control token, or is outside"):
        policy_of("fun_asr_nano").encode(with_lists(batch_of(["a"]), [["one", word]]))


@pytest.mark.fault(
    "Text",
    "more hotwords than a language model has positions for",
    "the row is refused, with how many tokens they are and may be",
)
def test_a_list_leaves_room_for_the_clip() -> None:
    policy: Any = policy_of("fun_asr_nano")
    policy.model.config.text_config.max_position_embeddings = 16
    with pytest.raises(ValueError, match=r"row 'a': 4 hotwords make a prompt of 7 tokens .* 4, a"):
        policy.encode(with_lists(batch_of(["a"]), [[*WORDS]]))


@pytest.mark.fault(
    "Text",
    "hotwords for a checkpoint whose chat template has no place for them",
    "the row is refused: the words would be left out without a word",
)
def test_a_template_that_drops_the_words_is_refused() -> None:
    policy: Any = policy_of("fun_asr_nano")
    policy.processor.chat_template = policy.processor.chat_template.replace("keywords", "others")
    with pytest.raises(ValueError, match=r"'one' is not in the prompt .* copy chat_template.jinja"):
        policy.encode(with_lists(batch_of(["a"]), [["one"]]))


def test_an_instruction_has_a_place_for_the_words() -> None:
    with pytest.raises(ValueError, match=r"GlmAsrPolicy.hotwords: want an instruction with \{hot"):
        policy_of("glm_asr", hotwords="Keywords:")


def test_whisper_computes_as_its_class_does() -> None:
    """Prompts of several lengths: log-probs are those of the class's own forward, each row alone."""
    policy: Any = policy_of("whisper")
    batch = with_lists(batch_of(NAMES), LISTS)
    context = policy.encode(batch)
    rollout = random_rollout(policy, len(NAMES), 2)
    with torch.no_grad():
        ours = log_probs(policy, context, rollout)
        for number, prompt in enumerate(tokens_of(context)):
            for sample in range(2):
                said = rollout.tokens[number, sample, rollout.keep[number, sample]]
                ids = torch.tensor([[*prompt, *said.tolist()]])
                out = policy.model(
                    encoder_outputs=(context.features[number : number + 1],), decoder_input_ids=ids
                )
                logits = out.logits[0, len(prompt) - 1 : -1].masked_fill(
                    ~policy.allowed, -torch.inf
                )
                own = logits.log_softmax(-1).gather(-1, said[:, None]).squeeze(-1)
                assert_close(ours[number, sample, : len(said)], own, "policy")

    # Joined and cut, as dynamic sampling and passes do.
    joined = context.select([1]).join([context.select([0, 2])])
    assert tokens_of(joined) == [tokens_of(context)[number] for number in (1, 0, 2)]
    assert joined.select([0]).tokens.shape[1] == 4
