"""configs/moonshine.yaml as it is, but for the checkpoint: a tiny one stands for it, and takes two steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml
from transformers import MoonshineForConditionalGeneration

from lightning_audiorl.models import MoonshinePolicy, TinyMoonshine
from lightning_audiorl.models.finetune import lora_layers
from tests.command import run, write_manifest

CONFIG = Path(__file__).parents[1] / "configs" / "moonshine.yaml"


def test_it_runs_two_steps(tmp_path: Path) -> None:
    model, processor = TinyMoonshine(width=16, encoder_layers=1, decoder_layers=1, heads=2).build()
    model.save_pretrained(tmp_path / "start")
    processor.save_pretrained(tmp_path / "start")

    text = CONFIG.read_text()
    assert len(text.splitlines()) < 25
    config: dict[str, Any] = yaml.safe_load(text)
    settings = config["model"]["init_args"]
    settings["policy"]["init_args"]["init_from"] = str(tmp_path / "start")
    settings["decoding"]["max_new_tokens"] = 4
    settings |= {"num_steps": 2, "group_size": 2}

    manifest = str(write_manifest(tmp_path))
    config["data"]["init_args"] |= {
        "train": manifest,
        "val": {"dev": manifest},
        "batch_size": 3,
        "num_workers": 0,
    }
    config["trainer"] |= {"accelerator": "cpu", "default_root_dir": str(tmp_path / "run")}
    config["report"] = {"enabled": False}
    trained: Any = run(tmp_path, config).model
    assert isinstance(trained.policy, MoonshinePolicy)
    assert len(list(lora_layers(trained.policy))) == 10
    assert math.isfinite(trained.evaluations[-1]["results"]["dev"]["wer"])
    assert MoonshineForConditionalGeneration.from_pretrained(tmp_path / "run" / "export")
