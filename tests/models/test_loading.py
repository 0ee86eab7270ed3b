"""Where weights come from: tiny specs, folders, our checkpoints, chains of them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_audiorl.algorithms import SFT
from lightning_audiorl.models import (
    FunAsrNanoPolicy,
    Policy,
    SampleKey,
    TinyFunAsrNano,
    WhisperPolicy,
    content_hash,
)
from lightning_audiorl.models.loading import Start, read_start
from lightning_audiorl.models.tiny import TINY_SPECS, word_tokenizer
from tests.models.families import (
    AUDIO_FAMILIES,
    CASES,
    DECODING,
    FAMILIES,
    POLICIES,
    RATE_HZ,
    SPECS,
    batch_of,
    disturb,
    finetune_of,
    log_probs,
    make,
)


def save_checkpoint(policy: Policy, path: Path, start_hash: str = "") -> str:
    """A checkpoint as training writes it, without the training."""
    module = SFT(policy, num_steps=1)
    module.start_hash = start_hash or content_hash(policy)
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return str(path)


# --- tiny models


@pytest.mark.parametrize("family", FAMILIES)
def test_a_spec_names_its_weights(family: str) -> None:
    kind, spec = POLICIES[family], SPECS[family]
    state = torch.get_rng_state()
    first = content_hash(kind(spec))
    torch.rand(1)
    assert content_hash(kind(spec)) == first
    assert content_hash(kind(replace(spec, seed=1))) != first
    torch.set_rng_state(state)
    kind(spec)
    assert torch.equal(torch.get_rng_state(), state)


def test_word_tokenizer_is_computed_in_the_head() -> None:
    tokenizer = word_tokenizer(["yes", "no"], ["<|late|>"])
    assert tokenizer.encode("no yes  maybe <|late|>") == [6, 5, 4, 7]
    assert tokenizer.decode([5, 6, 2], skip_special_tokens=True) == "yes no"
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|object_ref_start|>",
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_records_are_plain_and_come_back(family: str, tmp_path: Path) -> None:
    start = Start(SPECS[family], ["a.ckpt"])
    torch.save(start.record(), tmp_path / "record")
    record = torch.load(tmp_path / "record", weights_only=True)
    assert record["source"]["kind"] in TINY_SPECS
    assert Start.from_record(record) == start
    assert Start.from_record({"source": "owner/name", "checkpoints": []}) == read_start(
        "owner/name"
    )


def test_records_without_a_kind_are_fun_asr_nano() -> None:
    record = Start(SPECS["fun_asr_nano"]).record()
    del record["source"]["kind"]
    assert Start.from_record(record).source == SPECS["fun_asr_nano"]


# --- folders and checkpoints


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_folder_is_the_same_policy(family: str, tmp_path: Path) -> None:
    policy = make(family)
    policy.export(str(tmp_path))
    again = POLICIES[family](str(tmp_path)).eval()
    assert again.start == Start(str(tmp_path))
    assert content_hash(again) == content_hash(policy)
    assert torch.equal(again.allowed, policy.allowed)
    assert all(p.data_ptr() % 64 == 0 for p in again.parameters()), "still in the mapped file"
    batch, key = batch_of(["a", "b"]), SampleKey(0, 0)
    rollouts = [p.sample(p.encode(batch), 2, DECODING, key) for p in (policy, again)]
    assert torch.equal(rollouts[0].tokens, rollouts[1].tokens)
    assert torch.equal(rollouts[0].log_probs, rollouts[1].log_probs)


@pytest.mark.parametrize("family", FAMILIES)
def test_folders_load_in_half_precision(family: str, tmp_path: Path) -> None:
    make(family).export(str(tmp_path))
    policy = POLICIES[family](str(tmp_path), dtype="bfloat16").eval()
    # Voxtral's class keeps its positions in float32.
    kept = tuple(policy.model._keep_in_fp32_modules_strict or ())
    rest = [p for name, p in policy.named_parameters() if not any(one in name for one in kept)]
    assert {p.dtype for p in rest} == {torch.bfloat16}
    context = policy.encode(batch_of(["a", "b"]))
    rollout = policy.sample(context, 2, DECODING, SampleKey(0, 0))
    scored = log_probs(policy, context, rollout)
    assert scored.dtype == rollout.log_probs.dtype == torch.float32
    assert (scored - rollout.log_probs).abs().max() < 0.1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("from_folder", [False, True])
def test_a_chain_of_checkpoints_is_rebuilt(family: str, from_folder: bool, tmp_path: Path) -> None:
    kind, source = POLICIES[family], SPECS[family]
    if from_folder:
        make(family).export(str(tmp_path / "start"))
        source = str(tmp_path / "start")
    first = kind(source, finetune_of(family, "last"))
    before = content_hash(first)
    disturb(first)
    one = save_checkpoint(first, tmp_path / "one.ckpt", before)
    second = kind(one)
    assert content_hash(second) == content_hash(first)
    disturb(second)
    two = save_checkpoint(second, tmp_path / "two.ckpt", content_hash(first))
    third = kind(two, finetune_of(family, "last"))
    assert content_hash(third) == content_hash(second) != content_hash(first)
    assert third.start == Start(source, [one, two])
    assert read_start(two) == third.start
    held = torch.load(one, weights_only=True)["state_dict"]
    assert {key.removeprefix("policy.") for key in held} == set(first.trainable())


def test_fresh_adapters_go_on_top_of_a_checkpoint(tmp_path: Path) -> None:
    first = make("fun_asr_nano", lively=False)
    before = content_hash(first)
    disturb(first, 0.3)
    path = save_checkpoint(first, tmp_path / "one.ckpt", before)
    policy = FunAsrNanoPolicy(path, finetune_of("fun_asr_nano", "lora")).eval()
    batch, key = batch_of(["a", "b"]), SampleKey(0, 0)
    rollouts = [p.sample(p.encode(batch), 2, DECODING, key) for p in (first, policy)]
    assert torch.equal(rollouts[0].log_probs, rollouts[1].log_probs)


@pytest.mark.parametrize(("family", "mode"), [case for case in CASES if "lora" in case[1]])
def test_a_checkpoint_with_adapters_is_a_start_with_them_merged(
    family: str, mode: str, tmp_path: Path
) -> None:
    finetune = replace(finetune_of(family, mode), lora_rank=3, lora_alpha=12)
    first = POLICIES[family](SPECS[family], finetune).eval()
    before = content_hash(first)
    disturb(first, 0.3)
    one = save_checkpoint(first, tmp_path / "one.ckpt", before)
    first.export(str(tmp_path / "export"))
    second, exported = POLICIES[family](one), POLICIES[family](str(tmp_path / "export"))
    assert (
        content_hash(second)
        == content_hash(exported)
        != content_hash(POLICIES[family](SPECS[family]))
    )
    assert all(p.requires_grad for p in second.trainable().values())
    again = POLICIES[family](one, finetune)
    path = save_checkpoint(again, tmp_path / "two.ckpt")
    disturb(again, 0.3)
    assert content_hash(POLICIES[family](path)) == content_hash(second)


# --- what is refused


def test_missing_starts_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        FunAsrNanoPolicy(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="no folder model "):
        FunAsrNanoPolicy("model")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        FunAsrNanoPolicy(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*gone\.ckpt"):
        FunAsrNanoPolicy(str(tmp_path / "gone.ckpt"))


def test_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "foreign.ckpt")
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match="not a checkpoint of this library"):
        FunAsrNanoPolicy(path)
    with pytest.raises(ValueError, match="the start is a TinyWhisper; expected TinyFunAsrNano"):
        FunAsrNanoPolicy(save_checkpoint(make("whisper"), tmp_path / "whisper.ckpt"))


def test_checkpoints_with_adapters_of_unknown_rank_are_refused(tmp_path: Path) -> None:
    path = save_checkpoint(make("text_lm", "lora"), tmp_path / "lora.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["audiorl"]["finetune"]
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match="LoRA adapters and does not say of which rank"):
        POLICIES["text_lm"](path)


def test_a_checkpoint_on_another_start_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "start"
    make("fun_asr_nano").export(str(folder))
    first = FunAsrNanoPolicy(str(folder), finetune_of("fun_asr_nano", "last"))
    path = save_checkpoint(first, tmp_path / "one.ckpt")
    FunAsrNanoPolicy(path)
    disturb(first)
    first.export(str(folder))
    with pytest.raises(
        ValueError, match=r"one\.ckpt: its run began from other weights than .*start now holds"
    ):
        FunAsrNanoPolicy(path)


def test_checkpoints_with_other_tensors_are_refused(tmp_path: Path) -> None:
    path = save_checkpoint(make("whisper"), tmp_path / "odd.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["policy.model.odd"] = torch.zeros(1)
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"model\.odd.*do not belong to this model"):
        WhisperPolicy(path)


@pytest.mark.parametrize(
    ("family", "longest_s"), [("fun_asr_nano", 1.92), ("whisper", 2.0), ("qwen2_audio", 2.0)]
)
def test_clips_of_a_length_that_the_model_cannot_take_are_named(
    family: str, longest_s: float
) -> None:
    policy = make(family)
    policy.encode(batch_of(["a", "fits"], [1.0, longest_s]))
    with pytest.raises(
        ValueError, match=rf"row 'b': {longest_s + 0.01:.3f} s of audio; this model takes"
    ):
        policy.encode(batch_of(["a", "b"], [1.0, longest_s + 0.01]))
    shortest_s = {
        "fun_asr_nano": 400 / RATE_HZ,
        "whisper": 1 / RATE_HZ,
        "qwen2_audio": 961 / RATE_HZ,
    }[family]
    policy.encode(batch_of(["a", "fits"], [1.0, shortest_s]))
    with pytest.raises(ValueError, match=r"row 'b': 0\.0.* s of audio; this model takes"):
        policy.encode(batch_of(["a", "b"], [1.0, shortest_s - 1 / RATE_HZ]))


@pytest.mark.parametrize("family", AUDIO_FAMILIES)
def test_another_sample_rate_is_refused(family: str) -> None:
    with pytest.raises(ValueError, match="wants 16000 Hz audio, got 8000"):
        make(family).encode(replace(batch_of(["a"]), sample_rate_hz=8000))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", ["one eleven", "one <|im_start|>", "one <|endoftext|>"])
def test_texts_outside_the_vocabulary_are_named(family: str, text: str) -> None:
    policy = make(family)
    if policy.tokenizer.convert_tokens_to_ids(text.split()[1]) in policy.stop_ids:
        pytest.skip("ends a text of this family")
    with pytest.raises(
        ValueError, match=r"row 'b': text ' ?one .*is outside the tokenizer's vocabulary"
    ):
        policy.targets(policy.encode(batch_of(["a", "b"])), ["one", text])


def with_row(change: Callable[[Any], Any]) -> Any:
    batch = batch_of(["a", "b"])
    return replace(batch, rows=(batch.rows[0], change(batch.rows[1])))


def test_prompts_that_cannot_be_read_are_named() -> None:
    policy = make("text_lm")
    for prompt, message in (
        ("", "the prompt is ''"),
        (7, "the prompt is 7"),
        ("one eleven", "outside the tokenizer"),
    ):
        with pytest.raises(ValueError, match=f"row 'b'.*{message}"):
            policy.encode(
                with_row(lambda row, prompt=prompt: replace(row, extra={"prompt": prompt}))
            )


def test_whisper_names_rows_that_it_cannot_serve() -> None:
    policy = make("whisper")
    with pytest.raises(
        ValueError, match=r"row 'b': lang 'xx' is not one of this model's: \['en'\]"
    ):
        policy.encode(with_row(lambda row: replace(row, lang="xx")))
    context = policy.encode(batch_of(["a", "b"]))
    assert policy.targets(context, ["", "one " * 35]).lengths.tolist() == [[1], [36]]
    with pytest.raises(
        ValueError, match="row 'b': text has 37 tokens, this model's decoder takes 36"
    ):
        policy.targets(context, ["", "one " * 36])


def test_english_only_whisper_has_neither_language_nor_task() -> None:
    policy = make("whisper")
    del policy.model.generation_config.lang_to_id
    tokens = policy.encode(with_row(lambda row: replace(row, lang="xx"))).tokens
    assert policy.tokenizer.convert_ids_to_tokens(tokens[1].tolist()) == [
        "<|startoftranscript|>",
        "<|notimestamps|>",
    ]


def test_whisper_never_samples_timestamps_or_suppressed_tokens() -> None:
    policy = make("whisper")
    vocabulary = policy.tokenizer.get_vocab()
    policy.model.generation_config.no_timestamps_token_id = vocabulary["one"]
    policy.model.generation_config.suppress_tokens = [vocabulary["zero"], policy.stop_ids[0]]
    _, allowed_mask = policy._vocabulary()
    allowed = allowed_mask.nonzero().squeeze(-1).tolist()
    assert policy.tokenizer.convert_ids_to_tokens(allowed) == ["<|im_end|>", "one"]


def test_text_models_that_rescale_their_logits_are_refused(tmp_path: Path) -> None:
    policy = make("text_lm")
    policy.model.config.final_logit_softcapping = 30.0
    policy.export(str(tmp_path))
    with pytest.raises(ValueError, match=r"rescales its logits \(\['final_logit_softcapping'\]\)"):
        POLICIES["text_lm"](str(tmp_path))


def test_other_words_are_another_tokenizer() -> None:
    policy = FunAsrNanoPolicy(replace(SPECS["fun_asr_nano"], words=("ja", "nein")))
    assert isinstance(policy.start.source, TinyFunAsrNano)
    context = policy.encode(batch_of(["a"]))
    assert policy.decode(policy.targets(context, ["nein ja"]), context) == [["nein ja"]]
