"""The how-to pages: every command, file and program of each, from top to bottom, on a tiny Whisper on a CPU.

A block whose first line is ``# name.yaml`` or ``# name.py`` is written to that file, and a block ``sh`` is followed
line by line. Blocks of other languages (``text``), and files that nothing calls, are for what the tests cannot run.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import TokenizersBackend, WhisperTokenizer

from lightning_audiorl.models import DIGIT_WORDS
from tests.command import TEXTS, write_manifest
from tests.models.families import SPECS
from tests.pages import ROOT, blocks, follow

PAGES = (
    "one_gpu",
    "memory",
    "lora",
    "many_gpus",
    "sft",
    "elsewhere",
    "serve",
    "curves",
    "starting_values",
    "limits",
    "install",
)
FILE = re.compile(r"# (\w+\.(?:yaml|py))\b")

# For the hours of a real run, the seconds of a tiny one on a CPU.
SMALLER = {
    "accelerator: auto": "accelerator: cpu",
    "precision: bf16-mixed, ": "",
    ", precision: bf16-mixed": "",
    "num_workers: 4": "num_workers: 0",
    "group_size: 8": "group_size: 2",
    "batch_size: 16": "batch_size: 10",
    "batch_size: 8,": "batch_size: 2,",
    "max_new_tokens: 440": "max_new_tokens: 4",
    "num_rows: 5000, seed: 1": "num_rows: 20, max_s: 1.5, seed: 1",
    "num_rows: 100, seed: 2": "num_rows: 4, max_s: 1.5, seed: 2",
}
NUM_STEPS = re.compile(r"num_steps: \d+")

#: Settings for a page that names a file of the reader's own.
MY = """
trainer: {accelerator: cpu, default_root_dir: runs/mine}
model:
  class_path: GRPO
  init_args:
    policy: {class_path: WhisperPolicy, init_args: {init_from: checkpoint}}
    num_steps: 2
    group_size: 2
    decoding: {max_new_tokens: 4}
    rewards: {rewards: [{class_path: Accuracy, init_args: {floor: -1.0}}]}
data:
  class_path: AsrDataModule
  init_args: {batch_size: 4, train: train.jsonl, val: {dev: dev.jsonl}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader has: a checkpoint by its name, recordings with texts, manifests, settings."""
    spec: Any = replace(SPECS["whisper"], words=tuple(DIGIT_WORDS))  # type: ignore[type-var]
    model, processor = spec.build()
    for name in ("openai/whisper-large-v3-turbo", "checkpoint", "exported"):
        model.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)

    write_manifest(tmp_path)
    write_manifest(tmp_path, "dev.jsonl")
    (tmp_path / "clips").mkdir()
    write_manifest(tmp_path / "clips")
    for number, text in enumerate(TEXTS):
        (tmp_path / "clips" / f"{number}.txt").write_text(text)
    (tmp_path / "my.yaml").write_text(MY)
    shutil.copytree(ROOT / "configs" / "plan", tmp_path / "configs" / "plan")

    # The stand-in's tokenizer is not Whisper's, whose ways of reading tokens the pipeline asks for.
    for name, method in vars(WhisperTokenizer).items():
        if callable(method) and not hasattr(TokenizersBackend, name):
            monkeypatch.setattr(TokenizersBackend, name, method, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


def smaller(text: str) -> str:
    for large, small in SMALLER.items():
        text = text.replace(large, small)
    return NUM_STEPS.sub("num_steps: 2", text)


def followed(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a line prints; on two processes of a CPU for eight GPUs, each a program of its own."""
    line = line.replace("--trainer.accelerator gpu", "--trainer.accelerator cpu")
    line = line.replace("--trainer.devices 8", "--trainer.devices 2").replace("_node 8", "_node 2")
    words = shlex.split(line)
    is_own = words[0] == "torchrun" or "--trainer.devices" in words
    if not is_own:
        return follow(line, capsys)

    program = [sys.executable, "-m", "lightning_audiorl", *words[1:]]
    if words[0] == "torchrun":
        program = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words[1:]]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_from_top_to_bottom(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text()
    if name == "lora":
        # The base of an adapter is the folder that training began from.
        assert "init_from: checkpoint" in MY
    for language, text in blocks(page):
        file = FILE.match(text)
        if file is not None and language in ("yaml", "python"):
            Path(file[1]).write_text(smaller(text))
        elif language == "sh" and "experiments" not in text:
            for line in text.replace("\\\n", " ").splitlines():
                capsys.readouterr()
                printed = followed(line, capsys)
                assert printed.strip() or "fit" in line or "split.py" in line, line

    if name == "one_gpu":
        assert (folder / "runs" / "mine" / "report" / "report.html").is_file()
        assert (folder / "exported" / "README.md").is_file()
    if name == "sft":
        assert (folder / "comparison" / "compare.csv").is_file()


def test_every_how_to_is_followed() -> None:
    """A page of the site's how-tos is here, or its commands are followed by a test of its own, or wait for one."""
    sections = (ROOT / "mkdocs.yml").read_text().partition("- How to:")[2].partition("\n  - ")[0]
    named = set(re.findall(r"(\w+)\.md", sections))
    elsewhere = {"your_data", "your_checkpoint", "extending"}
    # Commands over data or engines of other people's, or shown beside a configuration that its own test runs.
    configured = {
        "rewards",
        "rl_data",
        "text",
        "evaluation",
        "whisper",
        "tts",
        "diffro",
        "rarely_right",
        "reports",
        "plan",
        "phases",
        "engine",
        "judges",
        "new_family",
    }
    commanding = set()
    for name in named:
        page = (ROOT / "docs" / f"{name}.md").read_text()
        if any(language == "sh" and "audiorl " in text for language, text in blocks(page)):
            commanding.add(name)
    assert commanding - elsewhere - configured <= set(PAGES)


def test_what_is_followed_is_there() -> None:
    """No page has lost its commands without a word."""
    commands = {}
    for name in PAGES:
        page = (ROOT / "docs" / f"{name}.md").read_text()
        commands[name] = sum(language == "sh" for language, _ in blocks(page))
    assert commands["one_gpu"] >= 8
    assert sum(count > 0 for count in commands.values()) >= 7
