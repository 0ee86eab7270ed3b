"""README.md: every command and program of it, from top to bottom, on a tiny Whisper; its links and its length."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightning_audiorl.models import DIGIT_WORDS
from tests.command import write_manifest
from tests.models.families import SPECS
from tests.pages import ROOT, blocks, follow

PAGE = (ROOT / "README.md").read_text()
BLOCKS = blocks(PAGE)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")

# For the hours of a real run, the seconds of a tiny one on a CPU.
SMALLER = {
    "accelerator: auto": "accelerator: cpu",
    "num_steps: 500": "num_steps: 2",
    "group_size: 12": "group_size: 2",
    "batch_size: 32, num_workers: 4": "batch_size: 4, num_workers: 0",
    "max_new_tokens: 440": "max_new_tokens: 4",
    "nonspeech: {class_path: NonSpeech}": "nonspeech: {class_path: NonSpeech, init_args: {num_rows: 7, max_s: 1.5}}",
    "{num_rows: 20000, seed: 1}": "{num_rows: 70, max_s: 1.5, seed: 1}",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader has: two manifests, and the hub's checkpoints, in folders of their names."""
    spec: Any = replace(SPECS["whisper"], words=tuple(DIGIT_WORDS))  # type: ignore[type-var]
    model, processor = spec.build()
    for name in ("whisper-base", "whisper-large-v3-turbo"):
        model.save_pretrained(tmp_path / "openai" / name)
        processor.save_pretrained(tmp_path / "openai" / name)
    write_manifest(tmp_path)
    write_manifest(tmp_path, "dev.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shrink(path: Path) -> None:
    text = path.read_text()
    for large, small in SMALLER.items():
        assert large in text, large
        text = text.replace(large, small)
    path.write_text(text)


@pytest.mark.slow
def test_every_command_from_top_to_bottom(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said: dict[str, str] = {}
    for language, text in BLOCKS:
        if language == "json":
            assert {"audio_filepath", "text"} <= set(json.loads(text))
        elif language == "python":
            program = folder / "program.py"
            program.write_text(text)
            said[text.splitlines()[0]] = follow("python program.py", capsys)
        else:
            assert language == "sh"
            for command in text.splitlines():
                if command.startswith("make "):
                    continue
                said[command] = follow(command, capsys)
                if command.startswith("cp "):
                    shrink(folder / "my.yaml")

    assert [command.split()[:2] for command in said] == [
        ["from", "lightning_audiorl"],
        ["cp", "configs/whisper.yaml"],
        ["audiorl", "plan"],
        ["audiorl", "fit"],
        ["audiorl", "fit"],
        ["audiorl", "validate"],
        ["from", "transformers"],
    ]
    table, _, plan, _, _, validated, _ = said.values()
    assert "dev" in table
    assert "update" in plan
    assert "nonspeech" in validated
    assert (folder / "runs" / "whisper" / "report").is_dir()


def test_the_targets_of_make_are_there() -> None:
    commands = [text for language, text in BLOCKS if language == "sh"]
    named = re.findall(r"^make ([\w-]+)", "\n".join(commands), re.MULTILINE)
    assert named == ["quickstart-tts", "quickstart"]
    for target in named:
        plan = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True
        )
        config = f"configs/{target.replace('-', '_')}.yaml"
        assert f"audiorl fit --config {config}" in plan.stdout


def test_one_screen_comes_first() -> None:
    """What, for whom, two commands and ten lines of Python stand before anything that needs data."""
    first, _ = PAGE.split("## Your checkpoint, your data")
    assert len(first.splitlines()) < 60
    assert len(PAGE.splitlines()) < 160


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target, _ in LINK.findall(page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
