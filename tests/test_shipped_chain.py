"""The digits' speech system as it ships: every part in the order of docs/tts.md, few steps, recordings of tones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM

from lightning_audiorl import cli
from tests.command import run
from tests.data.fakes import write_tone

pytestmark = pytest.mark.slow
CONFIGS = Path(__file__).parents[1] / "configs" / "tts" / "fsdd"
SPEAKERS = ("george", "jackson", "nicolas", "theo", "yweweler")
PARTS = (
    "codec",
    "asr_judge",
    "held_out_asr_judge",
    "speaker_encoder",
    "held_out_speaker_encoder",
    "sft",
    "token2text",
)
FROM_START = ("control", "grpo", "diffro", "grpo_diffro")


def recordings(root: Path) -> str:
    for number, speaker in enumerate(SPEAKERS):
        for digit in range(10):
            for index in range(14):
                path = root / "recordings" / f"{digit}_{speaker}_{index}.wav"
                write_tone(path, 0.3 + 0.01 * digit, 8000, hz=150.0 + 40 * digit + 10 * number)
    return str(root)


def shrunk(name: str) -> dict[str, Any]:
    """A shipped configuration with two steps and a few rows."""
    settings: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    settings["model"]["init_args"]["num_steps"] = 2
    for rows in settings["data"]["init_args"]["val"].values():
        rows["init_args"]["num_rows"] = 4
    return settings


def test_every_part_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSDD_ROOT", recordings(tmp_path / "fsdd"))
    monkeypatch.chdir(tmp_path)
    for name in (*PARTS, *FROM_START):
        run(tmp_path, shrunk(name))
    exports = {name: Path("runs/tts/fsdd") / name / "export" for name in (*PARTS, *FROM_START)}
    assert [
        name for name, folder in exports.items() if not list(folder.glob("*.safetensors"))
    ] == []
    for name in ("sft", *FROM_START):
        assert AutoModelForCausalLM.from_pretrained(exports[name]).config.vocab_size > 1000

    calibrate = yaml.safe_load((CONFIGS / "calibrate.yaml").read_text()) | {"limit_rows": 8}
    predict = yaml.safe_load((CONFIGS / "predict.yaml").read_text())
    subsets = yaml.safe_load((CONFIGS / "rl_subsets.yaml").read_text())["data"]
    chosen = subsets["init_args"]["subsets"]["fit_for_rl"]
    for rows in (predict["rows"], chosen["source"]):
        rows["init_args"]["num_rows"] = 20
    # A start of two steps says nothing well: of all rules, those that look at the prompt and the text alone.
    chosen["builder"]["init_args"]["rules"] = chosen["builder"]["init_args"]["rules"][:3]
    subsets["init_args"]["val"]["dev"]["init_args"]["num_rows"] = 4
    for name, settings in {"calibrate": calibrate, "predict": predict}.items():
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
        cli.main([name, "--config", str(tmp_path / "c.yaml")])
    assert len(Path("runs/tts/fsdd/predict/hypotheses.jsonl").read_text().splitlines()) == 20
    trained: Any = run(tmp_path, shrunk("grpo") | {"data": subsets}).model
    assert trained.rl_step == 2
