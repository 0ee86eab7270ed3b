"""An exported Whisper transcribes as its start does: with timestamps, without, and beyond one window."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from lightning_audiorl.losses import CrossEntropy, LossSettings, MicroBatch, Prepared
from lightning_audiorl.models import SampleKey, WhisperPolicy
from lightning_audiorl.models.tiny_base import character_tokenizer, word_tokenizer
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.types import Decoding
from tests.models.families import SPECS, batch_of, disturb, log_probs

WORDS = ["zero", "one", "two", "three", ":", "(", "-"]
LANGUAGES = ["en", "zh", "ja", "de", "th", "yue"]
WINDOW_S = 2


def whisper_start(folder: Path, characters: str = "", **generation: Any) -> str:
    """A random Whisper with timestamps, languages and the generation settings of OpenAI's checkpoints.

    Its tokens are words, or ``characters``, a space among them.
    """
    tasks = ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    languages = [f"<|{code}|>" for code in LANGUAGES]
    stamps = [f"<|{0.02 * i:.2f}|>" for i in range(50 * WINDOW_S + 1)]
    special = ["<|startoftranscript|>", *languages, *tasks, "<|notimestamps|>"]
    tokenizer = word_tokenizer(WORDS, special + stamps)
    if characters:
        tokenizer = character_tokenizer(characters, special + stamps)
    ids = tokenizer.get_vocab()

    spec = replace(SPECS["whisper"], max_target_positions=120)
    ends = dict.fromkeys(["bos_token_id", "eos_token_id", "pad_token_id"], tokenizer.eos_token_id)
    ends["decoder_start_token_id"] = ids["<|startoftranscript|>"]
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(spec._config(len(tokenizer), ends))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = keyed_generator("whisper", name)
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))

    suppressed = [ids[token] for token in (":", "(", "-", *special[:1], *tasks) if token in ids]
    settings: dict[str, Any] = {
        "max_length": 120,
        "suppress_tokens": suppressed,
        "begin_suppress_tokens": [ids[characters[:1] or "zero"], tokenizer.eos_token_id],
        "is_multilingual": True,
        "lang_to_id": {language: ids[language] for language in languages},
        "task_to_id": {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "max_initial_timestamp_index": 50,
        "alignment_heads": [[1, 0], [1, 1]],
        "return_timestamps": False,
    }
    model.generation_config = GenerationConfig(**ends, **(settings | generation))
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=WINDOW_S)
    model.save_pretrained(folder)
    WhisperProcessor(extractor, tokenizer).save_pretrained(folder)
    return str(folder)


def transcripts(folder: str | Path) -> dict[str, list[list[int]]]:
    """Tokens of a clip within a window, and of one beyond it, by how they were asked for."""
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    out = {}
    for name, num_frames in (("short", 100 * WINDOW_S), ("long", 250 * WINDOW_S)):
        features: Tensor = torch.randn(1, 16, num_frames, generator=keyed_generator("clip", name))
        for return_timestamps in (False, True):
            if name == "long" and not return_timestamps:
                continue  # transformers itself asks for timestamps there
            tokens = model.generate(
                features,
                attention_mask=torch.ones(1, num_frames).long(),
                return_timestamps=return_timestamps,
                language="en",
                task="transcribe",
                max_new_tokens=24,
                num_beams=1,
            )
            out[f"{name}, timestamps {return_timestamps}"] = tokens.tolist()
    return out


@pytest.mark.fault(
    "What is exported",
    "a Whisper that is asked for timestamps, or for audio beyond one window, after an export",
    "generate() gives what it gave before; its generation config is its own but for the stop token at the beginning",
)
def test_an_exported_whisper_keeps_timestamps_and_long_audio(tmp_path: Path) -> None:
    start = whisper_start(tmp_path / "start")
    policy = WhisperPolicy(start)
    policy.export(str(tmp_path / "export"))
    policy.export(str(tmp_path / "twice"))

    before = transcripts(start)
    assert transcripts(tmp_path / "export") == before
    stamped = before["long, timestamps True"]
    assert len({token for row in stamped for token in row}) > 5, "this compares next to nothing"

    own, written, twice = (
        GenerationConfig.from_pretrained(tmp_path / name).to_dict()
        for name in ("start", "export", "twice")
    )
    begin = own.pop("begin_suppress_tokens")
    assert written.pop("begin_suppress_tokens") == begin[:1]
    assert twice.pop("begin_suppress_tokens") == begin[:1]
    assert own == written == twice
    assert policy.model.generation_config.begin_suppress_tokens == begin


@pytest.mark.fault(
    "What is exported",
    "texts with punctuation that Whisper's generation config suppresses, in supervised training",
    "trained on: each of their tokens has a finite loss and a gradient; none of them is ever sampled",
)
def test_texts_with_suppressed_punctuation_are_trained_on(tmp_path: Path) -> None:
    policy = WhisperPolicy(whisper_start(tmp_path / "start")).eval()
    context = policy.encode(batch_of(["a", "b"]))
    targets = policy.targets(context, ["one : ( two", "three"])
    assert policy.decode(targets, context) == [["one : ( two"], ["three"]]

    loss = CrossEntropy()
    loss.bind(LossSettings(policy, Decoding()))
    rows = tuple(replace(row, text="one : ( two") for row in batch_of(["a", "b"]).rows)
    total, sums = loss.compute(
        Prepared(), MicroBatch([0, 1], rows, context, rollout=None, weight=1.0), 1.0
    )
    total.backward()
    assert total.isfinite()
    assert int(sums["tokens"]) == 10
    ids = policy.tokenizer.convert_tokens_to_ids([":", "("])
    assert policy.output.weight.grad[ids].abs().sum(-1).min() > 0
    assert not policy.allowed[ids].any()
    disturb(policy, 0.1)
    rollout = policy.sample(context, 8, Decoding(max_new_tokens=8, min_cap=8), SampleKey(0, 0))
    assert not torch.isin(rollout.tokens[rollout.keep], torch.tensor(ids)).any()
    assert log_probs(policy, context, rollout)[rollout.keep].isfinite().all()

    for text in ("one eleven", "one <|0.00|>", "one <|en|>", "<|startofprev|> one"):
        with pytest.raises(ValueError, match=r"row 'b': text .*is outside the tokenizer's vocab"):
            policy.targets(context, ["one", text])


@pytest.mark.fault(
    "What is exported",
    "Whisper's targets in languages that are written without spaces",
    "no space stands before the text, which the model never writes there; in the others one does",
)
@pytest.mark.parametrize("language", LANGUAGES)
def test_targets_begin_as_whisper_begins(language: str, tmp_path: Path) -> None:
    policy = WhisperPolicy(whisper_start(tmp_path / "start", characters=" abcd"))
    batch = batch_of(["a", "b", "c"])
    rows = [replace(row, lang=language) for row in batch.rows]
    # Each row by its own language.
    rows[1] = replace(rows[1], lang="en")
    context = policy.encode(replace(batch, rows=tuple(rows)))
    targets = policy.targets(context, ["ab", "ab", ""])
    texts = [
        "".join(policy.tokenizer.convert_ids_to_tokens(row[:length]))
        for row, (length,) in zip(
            targets.tokens[:, 0].tolist(), targets.lengths.tolist(), strict=True
        )
    ]
    first = "ab" if language in ("zh", "ja", "th", "yue") else " ab"
    stop = policy.tokenizer.eos_token
    assert texts == [first + stop, " ab" + stop, stop]
    assert policy.targets(context.select([1]), ["ab"]).lengths.tolist() == [[4]]
