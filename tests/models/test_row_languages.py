"""The language of a row by any of its codes or names is the one that prompts and judges get."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_audiorl.judges import TransformersJudge
from lightning_audiorl.models import FunAsrNanoPolicy, TinyFunAsrNano, TinyWhisper
from lightning_audiorl.models.asr.whisper import WhisperPolicy
from lightning_audiorl.models.tiny import build_whisper
from lightning_audiorl.types import Hypothesis, PromptBatch, Speech, Utterance

CODES = {
    "zh": ("zh", "zh-CN", "zh_CN", "ZH", "cmn", "zho", "Chinese"),
    "en": ("en", "EN", "en-US", "eng", "English"),
    "ja": ("ja", "ja-JP", "jpn"),
    # What the checkpoint's prompt has no name for.
    "": ("de", "yue", "zh-en", "tlh"),
}


def batch(langs: list[str]) -> PromptBatch:
    rows = tuple(Utterance(f"r{i}", (), "one", 0.1, lang) for i, lang in enumerate(langs))
    num = torch.full((len(rows),), 1600)
    return PromptBatch(torch.zeros(len(rows), 1600), num, 16000, rows)


@pytest.mark.fault(
    "Text",
    "a language by another code, a region or its name, in Fun-ASR's prompt",
    "asks for the language that the normaliser counts in",
)
def test_fun_asr_is_asked_for_the_rows_language(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = FunAsrNanoPolicy(TinyFunAsrNano(width=16, encoder_layers=1, lm_layers=1))
    asked: list[Any] = []
    request = policy.processor.apply_transcription_request

    def spy(*args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs["language"])
        return request(*args, **kwargs)

    monkeypatch.setattr(policy.processor, "apply_transcription_request", spy)
    for code, langs in CODES.items():
        for lang in langs:
            asked.clear()
            policy.encode(batch([lang]))
            assert asked == [code or None], lang


def whisper(folder: Path) -> Path:
    """A tiny Whisper that knows four languages."""
    model, processor = build_whisper(
        TinyWhisper(words=("one", "two"), width=16, encoder_layers=1, decoder_layers=1)
    )
    tokens = ["<|zh|>", "<|de|>", "<|jw|>"]
    processor.tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    model.resize_token_embeddings(len(processor.tokenizer))
    ids = processor.tokenizer.convert_tokens_to_ids(tokens)
    model.generation_config.lang_to_id.update(zip(tokens, ids, strict=True))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.fault(
    "Text",
    "a language by another code, a region or its name, in Whisper's prompt",
    "is the model's token of that language; one that it lacks is an error that names the row",
)
def test_whisper_takes_any_name_of_its_languages(tmp_path: Path) -> None:
    policy = WhisperPolicy(str(whisper(tmp_path)))
    known = policy.model.generation_config.lang_to_id
    for token, langs in {
        "<|zh|>": CODES["zh"],
        "<|en|>": CODES["en"],
        "<|de|>": ("deu", "German", "de-AT"),
        "<|jw|>": ("jv", "jav", "Javanese"),
    }.items():
        for lang in langs:
            (prompt,) = policy.encode(batch([lang])).tokens.tolist()
            assert prompt[1] == known[token], lang

    with pytest.raises(ValueError, match=r"row 'r0': lang 'fr-FR' is not one of this model's"):
        policy.encode(batch(["fr-FR"]))


def said(lang: str, row_id: str) -> Hypothesis:
    speech = Speech(torch.randn(1600), 16000, torch.zeros(5).long())
    return Hypothesis(Utterance(row_id, (), "one", 0.1, lang), "", 6, True, speech)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.fault(
    "Text",
    "rows of several languages before a multilingual judge",
    "each is heard in its own; a judge that is told another language says so once, with the row's id",
)
def test_a_judge_hears_each_row_in_its_language(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = str(whisper(tmp_path))
    samples = [said("zh-CN", "a"), said("de", "b"), said("Chinese", "c"), said("fr", "d")]

    def heard(judge: TransformersJudge) -> list[tuple[str | None, int]]:
        calls: list[tuple[str | None, int]] = []

        def generate(**kwargs: Any) -> torch.Tensor:
            num = len(kwargs["encoder_outputs"].last_hidden_state)
            calls.append((kwargs.get("language"), num))
            return torch.zeros(num, 1, dtype=torch.long)

        judge.model.generate = generate
        assert None not in judge.transcribe(samples)
        return calls

    judge = TransformersJudge(folder, "seq2seq", batch_size=8)
    assert heard(judge) == [("zh", 2), ("de", 1), (None, 1)]
    (message,) = warnings_of(caplog)
    assert "row 'd' has lang 'fr'" in message

    caplog.clear()
    judge = TransformersJudge(folder, "seq2seq", batch_size=8, generate={"language": "german"})
    assert heard(judge) == [("german", 4)]
    (message,) = warnings_of(caplog)
    assert "row 'a' has lang 'zh-CN'" in message
    assert "'german'" in message
