"""Starts that no policy takes: of a family that is not known, with code of their own, without what reads the audio."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.command import run as run_command
from tests.command import tiny_config, write_manifest
from tests.damage import MAX_CHARACTERS
from tests.models.families import POLICIES, SPECS, batch_of, make
from tests.models.records import RECORDS
from tests.models.test_adapter_starts import adapted, alone

FAMILIES = ["fun_asr_nano", "whisper", *RECORDS]
# One that reads the clip in its prompt, one that attends to it.
_FAST = ("qwen3_asr", "moonshine")
IN_TURN = [
    family if family in _FAST else pytest.param(family, marks=pytest.mark.slow)
    for family in FAMILIES
]


def start(family: str, folder: Path) -> Path:
    model, processor = SPECS[family].build()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def edited(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(make: Callable[[], object], folder: Path) -> str:
    """The error's text: short, and it names the folder."""
    with pytest.raises((ValueError, OSError)) as refused:
        make()
    text = str(refused.value)
    assert str(folder) in text
    assert len(text) < MAX_CHARACTERS
    return text


@pytest.mark.fault(
    "Starts and checkpoints",
    "a folder of a family that transformers does not know, or that has no policy",
    "refused: which families have one, and the page that says how to add another",
)
@pytest.mark.parametrize("model_type", ["hummingbird", "vit"])
@pytest.mark.parametrize("family", IN_TURN)
def test_an_unknown_family_is_refused(family: str, model_type: str, tmp_path: Path) -> None:
    folder = start(family, tmp_path / "start")
    edited(folder / "config.json", model_type=model_type)
    said = refusal(lambda: POLICIES[family](str(folder)), folder)
    assert f"holds a {model_type!r}" in said
    for known in ("qwen3_asr", "whisper", "granite_speech", "docs/new_family.md"):
        assert known in said


@pytest.mark.fault(
    "Starts and checkpoints",
    "a folder whose configuration or tokenizer names Python code beside it (auto_map)",
    "the code is never run, and no question is asked on the terminal; where the folder does without it loads, else it "
    "is refused with what to do",
)
@pytest.mark.parametrize("kind", ["configuration", "tokenizer", "not needed"])
def test_code_of_a_folder_is_not_run(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = start("text_lm", tmp_path / "start")
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')\nclass Own: pass\n"
    (folder / "own.py").write_text(code)
    if kind == "tokenizer":
        maps = {"AutoTokenizer": ["own.Own", "own.Own"]}
        edited(folder / "tokenizer_config.json", auto_map=maps, tokenizer_class="Own")
    else:
        maps = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
        own_type = {} if kind == "not needed" else {"model_type": "own"}
        edited(folder / "config.json", auto_map=maps, **own_type)

    def asks(*_: object) -> str:
        raise AssertionError("a question on the terminal")

    monkeypatch.setattr("builtins.input", asks)
    if kind == "not needed":
        POLICIES["text_lm"](str(folder))
    else:
        said = refusal(lambda: POLICIES["text_lm"](str(folder)), folder)
        assert "Python code of its own" in said
        assert "docs/new_family.md" in said
    assert not ran.exists()


@pytest.mark.fault(
    "Starts and checkpoints",
    "a folder of weights without its processor",
    "refused before the weights are read, with the file to copy",
)
@pytest.mark.parametrize("family", IN_TURN)
def test_a_missing_processor_is_refused(family: str, tmp_path: Path) -> None:
    model, processor = SPECS[family].build()
    model.save_pretrained(tmp_path)
    said = refusal(lambda: POLICIES[family](str(tmp_path)), tmp_path)
    assert "tokenizer.json; copy it from the model" in said

    # The tokenizer alone reads no audio.
    processor.tokenizer.save_pretrained(tmp_path)
    said = refusal(lambda: POLICIES[family](str(tmp_path)), tmp_path)
    assert "preprocessor_config.json; copy it from the model" in said


@pytest.mark.fault(
    "Audio",
    "audio of another sampling rate than the model's",
    "a policy refuses it with both rates; a data module that would make it is refused at the first batch",
)
@pytest.mark.parametrize("family", IN_TURN)
def test_a_wrong_sampling_rate_is_refused(family: str) -> None:
    policy = make(family)
    batch = replace(batch_of(["a"]), sample_rate_hz=8000)
    with pytest.raises(ValueError, match="wants 16000 Hz audio, got 8000"):
        policy.encode(batch)


def test_a_run_of_a_wrong_sampling_rate_names_it(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    config = tiny_config(tmp_path)
    config["data"]["init_args"]["sample_rate_hz"] = 8000
    with pytest.raises(ValueError, match="wants 16000 Hz audio, got 8000"):
        run_command(tmp_path, config)


@pytest.mark.fault(
    "Starts and checkpoints",
    "an adapter over the weights of another base than it was trained on, of the same family or of another",
    "refused, with what does not fit",
)
@pytest.mark.parametrize("family", IN_TURN)
def test_an_adapter_of_another_base_is_refused(family: str, tmp_path: Path) -> None:
    adapted(tmp_path / "start", family, ["v_proj"])

    # Twice as wide.
    wider = replace(SPECS[family], width=64)
    model, processor = wider.build()
    model.save_pretrained(tmp_path / "wider")
    processor.save_pretrained(tmp_path / "wider")
    folder = alone(tmp_path / "start", str(tmp_path / "wider"))
    said = refusal(lambda: POLICIES[family](str(folder)), folder)
    assert "its adapter does not fit its base" in said

    edited(
        folder / "adapter_config.json",
        base_model_name_or_path=str(start("text_lm", tmp_path / "other")),
    )
    with pytest.raises(ValueError, match=r"holds a 'llama', which TextLMPolicy") as refused:
        POLICIES[family](str(folder))
    assert str(tmp_path / "other") in str(refused.value)
