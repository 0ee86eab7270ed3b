"""configs/whisper.yaml as it is, but for the published checkpoint and the manifests: a tiny Whisper takes two steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lightning_audiorl.models import WhisperPolicy
from lightning_audiorl.models.finetune import lora_layers
from lightning_audiorl.text import LeaderboardNormaliser
from tests.command import class_of, run, write_manifest

CONFIG = Path(__file__).parents[1] / "configs" / "whisper.yaml"
TINY = {"width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "num_mel_bins": 16}


def shrunk(folder: Path) -> dict[str, Any]:
    """The shipped settings with a tiny model, six tones, and a run of two steps on a CPU."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    manifest = str(write_manifest(folder))
    config["trainer"] |= {"accelerator": "cpu", "default_root_dir": str(folder / "run")}
    config["report"] = {"enabled": False}

    model = config["model"]["init_args"]
    model["policy"]["init_args"]["init_from"] = class_of("models.TinyWhisper", **TINY)
    model["num_steps"] = 2
    model["group_size"] = 2
    model["decoding"] |= {"max_new_tokens": 4}
    model["eval_decodings"] = {"greedy": {"decoding": {"temperature": 0.0, "max_new_tokens": 4}}}

    data = config["data"]["init_args"]
    data["batch_size"] = 4
    data["num_workers"] = 0
    data["train"][0]["source"] = manifest
    data["val"]["dev"] = manifest
    data["val"]["nonspeech"]["init_args"] = {"num_rows": 7}
    return config


def test_it_is_short() -> None:
    assert len(CONFIG.read_text().splitlines()) < 25


def test_a_tiny_whisper_takes_two_steps(tmp_path: Path) -> None:
    module = run(tmp_path, shrunk(tmp_path)).model

    assert module.rl_step == 2
    assert isinstance(module.policy, WhisperPolicy)
    assert len(list(lora_layers(module.policy))) == 10
    assert module.losses[0].reference_sample is not None

    # What the encoder made is kept; the counts are of a step and begin anew.
    assert module.policy.encoder_cache is not None
    assert module.policy.encoder_cache.num_bytes > 0

    # The same texts are compared in rewards and evaluation.
    parts = [*module.rewards.rewards, module.evaluation]
    assert all(isinstance(part.normalisers["en"], LeaderboardNormaliser) for part in parts)
    results = module.evaluations[-1]["results"]
    assert results["dev"]["wer"] > 0
    assert set(results) == {"dev", "nonspeech"}
    assert (tmp_path / "run" / "export" / "config.json").is_file()
