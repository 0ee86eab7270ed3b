"""Voxtral: whole windows, the transcription request, and tokenizers that do not know it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_audiorl.models import VoxtralPolicy
from lightning_audiorl.weights import pretrained
from tests.models.families import SPECS, batch_of, make


def test_a_clip_is_whole_windows_of_375_tokens() -> None:
    policy = make("voxtral")
    context = policy.encode(batch_of(["a", "b"], [0.5, 30.1]))
    assert [tokens.count(24) for tokens in context.tokens] == [375, 750]
    assert context.num_frames.tolist() == [375, 750]
    assert [policy.padded_s(seconds) for seconds in (0.5, 30, 30.1)] == [30, 30, 60]


def test_the_request_says_the_language_that_has_two_letters() -> None:
    policy = make("voxtral")
    batch = batch_of(["a", "b", "c"])
    langs = ("en", "de-DE", "yue")
    rows = [replace(row, lang=lang) for row, lang in zip(batch.rows, langs, strict=True)]
    written = []
    for tokens in policy.encode(replace(batch, rows=tuple(rows))).tokens:
        names = policy.tokenizer.convert_ids_to_tokens(tokens)
        written.append([name for name in names if name != "[AUDIO]"])
    begin = ["<|im_start|>", "[INST]", "[BEGIN_AUDIO]", "[/INST]"]
    assert written[0] == [*begin, "lang:en", "[TRANSCRIBE]"]
    assert written[1] == [*begin, "lang:de", "[TRANSCRIBE]"]
    assert written[2] == [*begin, "[TRANSCRIBE]"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[TRANSCRIBE]", "[WRITE]", r"its tokenizer has no token \[TRANSCRIBE\]"),
        ("[AUDIO]", "[SOUND]", r"its tokenizer has no token \[AUDIO\]"),
    ],
)
def test_a_tokenizer_without_the_request_is_refused(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    model, processor = SPECS["voxtral"].build()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = tmp_path / name
        file.write_text(file.read_text().replace(f'"{old}"', f'"{new}"'))
    with pytest.raises(ValueError, match=message):
        VoxtralPolicy(str(tmp_path))


def test_a_model_with_another_placeholder_is_refused(tmp_path: Path) -> None:
    model, processor = SPECS["voxtral"].build()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"audio_token_id": 23}))
    with pytest.raises(
        ValueError, match="audio token of its tokenizer is 24, and its model wants 23"
    ):
        VoxtralPolicy(str(tmp_path))


@pytest.mark.fault(
    "Starts and checkpoints",
    "a Voxtral as its makers publish it, with tekken.json alone, where mistral-common is not installed",
    "refused with what to install; with mistral-common no other file of a tokenizer is asked for",
)
def test_mistrals_own_tokenizer_wants_mistral_common(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = SPECS["voxtral"].build()
    model.save_pretrained(tmp_path)
    processor.feature_extractor.save_pretrained(tmp_path)
    (tmp_path / "tekken.json").write_text("{}")
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"tekken.json.*pip install 'mistral-common\[audio\]'"):
        VoxtralPolicy(str(tmp_path))

    monkeypatch.setattr(pretrained, "find_spec", lambda name: object())
    pretrained._require_files("VoxtralProcessor", tmp_path)
