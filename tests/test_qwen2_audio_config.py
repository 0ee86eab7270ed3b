"""configs/assembled.yaml and configs/qwen2_audio.yaml as they are, but for the checkpoint: tiny parts stand for it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import Qwen2AudioForConditionalGeneration

from lightning_audiorl.commands.assemble import assemble
from lightning_audiorl.models import TinyCausalLM, TinyWhisper
from tests.command import run, write_manifest

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An assembled checkpoint of tiny parts."""
    folder = tmp_path_factory.mktemp("parts")
    parts = {
        "whisper": TinyWhisper(width=16, encoder_layers=1, heads=2, chunk_length_s=30),
        "lm": TinyCausalLM(width=32, layers=1, heads=2),
    }
    for name, tiny in parts.items():
        model, processor = tiny.build()
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    assemble(str(folder / "start"), str(folder / "whisper"), str(folder / "lm"))
    return str(folder / "start")


@pytest.mark.parametrize("name", ["assembled", "qwen2_audio"])
def test_it_runs_two_steps(name: str, start: str, tmp_path: Path) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text()
    assert len(text.splitlines()) < 25
    config: dict[str, Any] = yaml.safe_load(text)
    model = config["model"]["init_args"]
    model["policy"]["init_args"]["init_from"] = start
    model["num_steps"] = 2
    model["optim"]["warmup_steps"] = 0

    manifest = str(write_manifest(tmp_path))
    config["data"]["init_args"] |= {
        "train": manifest,
        "val": {"dev": manifest},
        "batch_size": 3,
        "num_workers": 0,
    }
    config["trainer"] |= {
        "accelerator": "cpu",
        "precision": "32-true",
        "default_root_dir": str(tmp_path / "run"),
        "logger": False,
    }
    trained: Any = run(tmp_path, config).model
    assert math.isfinite(trained.evaluations[-1]["results"]["dev"]["wer"])
    assert Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path / "run" / "export")
