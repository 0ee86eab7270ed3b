"""``audiorl fit`` trains the parts of a speech synthesis system: LightningModules without a policy's callbacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning_audiorl.codecs import TinyCodec
from tests.command import class_of, run

CODEC = {
    "sample_rate_hz": 8000,
    "num_mels": 24,
    "n_fft": 256,
    "width": 16,
    "layers": 1,
    "iterations": 1,
}


def data() -> dict[str, Any]:
    sounds = class_of("data.NonSpeech", num_rows=8, kinds=["hum"], min_s=0.3, max_s=0.5)
    return class_of(
        "data.AsrDataModule",
        train=[{"source": sounds}],
        val={"dev": sounds},
        batch_size=4,
        sample_rate_hz=8000,
    )


def trainer(folder: Path) -> dict[str, Any]:
    return {
        "accelerator": "cpu",
        "default_root_dir": str(folder),
        "logger": False,
        "enable_checkpointing": False,
    }


def test_a_codec_trains_from_yaml(tmp_path: Path) -> None:
    codec = class_of("codecs.TinyCodec", init_from=class_of("codecs.TinyCodecConfig", **CODEC))
    model = class_of(
        "codecs.CodecTraining", codec=codec, num_steps=2, folder=str(tmp_path / "codec")
    )
    command = run(
        tmp_path,
        {"trainer": trainer(tmp_path / "run"), "model": model, "data": data()},
        "--seed_everything",
        "3",
    )
    assert command.model.seed == command.datamodule.seed == 3
    assert command.model.global_step == 2
    assert TinyCodec(str(tmp_path / "codec")).config.num_mels == 24
    assert not (tmp_path / "run" / "report").exists()  # that is of policies


def test_a_judge_trains_from_yaml(tmp_path: Path) -> None:
    network = class_of("judges.XvectorNetwork", width=8)
    model = class_of(
        "judges.SpeakerTraining",
        network=network,
        num_steps=1,
        speakers=["", "b"],
        folder=str(tmp_path / "judge"),
    )
    run(tmp_path, {"trainer": trainer(tmp_path / "run"), "model": model, "data": data()})
    assert json.loads((tmp_path / "judge" / "config.json").read_text())["kind"] == "XvectorNetwork"
