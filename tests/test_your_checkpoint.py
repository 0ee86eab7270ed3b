"""docs/your_checkpoint.md: its files and commands, in the page's order, on a tiny checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightning_audiorl import models
from lightning_audiorl.models import DIGIT_WORDS
from tests.command import write_manifest
from tests.models.families import POLICIES, SPECS
from tests.models.records import RECORDS
from tests.pages import ROOT, blocks, follow

PAGE = (ROOT / "docs" / "your_checkpoint.md").read_text()
BLOCKS = blocks(PAGE)

# For the minutes of a real run, the seconds of a tiny one.
SMALLER = {
    "num_steps: 200": "num_steps: 2",
    "group_size: 8": "group_size: 2",
    "batch_size: 16": "batch_size: 2",
    "max_new_tokens: 256": "max_new_tokens: 5",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the reader has: a checkpoint and two manifests."""
    spec: Any = replace(SPECS["qwen3_asr"], words=tuple(DIGIT_WORDS), max_positions=2048)  # type: ignore[type-var]
    model, processor = spec.build()
    model.save_pretrained(tmp_path / "checkpoint")
    processor.save_pretrained(tmp_path / "checkpoint")
    write_manifest(tmp_path)
    write_manifest(tmp_path, "dev.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(text: str) -> None:
    name = text.splitlines()[0].removeprefix("# ")
    for large, small in SMALLER.items():
        text = text.replace(large, small)
    Path(name).write_text(text)


@pytest.mark.slow
def test_the_page_from_top_to_bottom(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {}
    for language, text in BLOCKS:
        if language == "json":
            # Its row is one of the manifest's.
            row = json.loads(text)
            first = json.loads((folder / "train.jsonl").read_text().splitlines()[0])
            assert first | {"lang": "en"} == row
        elif language == "sh":
            (command,) = text.splitlines()
            said[command] = follow(command, capsys)
        else:
            written(text)

    commands = list(said)
    assert [command.split()[:2] for command in commands] == [
        ["audiorl", "predict"],
        ["audiorl", "plan"],
        ["audiorl", "fit"],
        ["audiorl", "fit"],
        ["cat", "runs/mine/report/report.md"],
        ["audiorl", "export"],
        ["audiorl", "predict"],
        ["python", "decode.py"],
    ]
    before, plan, _, again, report, _, after, decoded = said.values()
    assert "WER" in before
    assert "WER" in after
    assert "update" in plan
    assert "wer" in report.lower()

    # transformers says what the last file holds of that clip.
    line = json.loads((folder / "runs" / "after.jsonl").read_text().splitlines()[0])
    (greedy,) = (one["text"] for one in line["samples"] if one["decoding"] == "greedy")
    words = decoded.strip().split("<asr_text>", 1)[-1].split()
    assert words[:4] == greedy.split()[:4]
    for export in ("exported", "runs/mine/export"):
        assert (folder / export / "README.md").is_file()
    assert again is not None


def test_the_page_has_every_family() -> None:
    for family in ("fun_asr_nano", "whisper", *RECORDS):
        policy = POLICIES[family]
        model_type = policy.family.model.config_class.model_type
        assert f"| `{model_type}` | `{policy.__name__}` |" in PAGE
        assert hasattr(models, policy.__name__)
