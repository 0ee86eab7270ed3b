from __future__ import annotations

import json
import sys
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_audiorl import cli
from lightning_audiorl.callbacks import (
    EarlyStop,
    Guard,
    PhaseProgressBar,
    RLCheckpoint,
    RunReport,
    SampleLogger,
)


def config(root: str, folder: Path) -> dict[str, Any]:
    digits = {
        "class_path": "lightning_audiorl.data.FsddDigits",
        "init_args": {"root": root, "num_words": [1, 2]},
    }
    rows = {
        "class_path": digits["class_path"],
        "init_args": {**digits["init_args"], "part": "dev", "num_rows": 2},
    }
    tiny = {"width": 32, "encoder_layers": 1, "lm_layers": 1, "heads": 2}
    policy = {
        "init_from": {"class_path": "lightning_audiorl.models.TinyFunAsrNano", "init_args": tiny}
    }
    decoding = {"decoding": {"temperature": 0.0, "max_new_tokens": 4}}
    return {
        "trainer": {"accelerator": "cpu", "logger": False, "default_root_dir": str(folder)},
        "model": {
            "class_path": "lightning_audiorl.algorithms.SFT",
            "init_args": {
                "policy": {
                    "class_path": "lightning_audiorl.models.FunAsrNanoPolicy",
                    "init_args": policy,
                },
                "num_steps": 2,
                "eval_decodings": {"greedy": decoding},
            },
        },
        "data": {
            "class_path": "lightning_audiorl.data.AsrDataModule",
            "init_args": {"batch_size": 2, "train": [{"source": digits}], "val": {"digits": rows}},
        },
        "checkpoint": {"every_n_steps": 1, "keep": 1},
        "export": {"enabled": False},
    }


@pytest.fixture
def call(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(command: str, *args: str, **changes: Any) -> cli.AudioRLCLI:
        settings = config(root, tmp_path)
        for key, value in changes.items():
            settings[key] = {**settings.get(key, {}), **value}
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
        monkeypatch.setattr(
            sys, "argv", ["audiorl", command, "--config", str(tmp_path / "c.yaml"), *args]
        )
        return cli.run()

    return run


def no_fit(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Trainer.fit does nothing; returns the checkpoints it was asked to go on from."""
    asked: list[str | None] = []

    @wraps(Trainer.fit)
    def fit(*_: Any, ckpt_path: str | None = None, **__: Any) -> None:
        asked.append(ckpt_path)

    monkeypatch.setattr(Trainer, "fit", fit)
    return asked


def test_fit_and_validate(call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = call("fit", "--ckpt_path", "last")
    kinds = [type(callback).__name__ for callback in first.trainer.callbacks]
    assert {"PhaseProgressBar", "SampleLogger", "HackingWatch", "Export", "RunReport"} <= set(kinds)
    assert kinds[-1] == "RLCheckpoint", "it saves what the others know"
    assert first.trainer.checkpoint_callback.every_n_steps == 1
    assert not (tmp_path / "export").exists()
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["settings"]["checkpoint"]["keep"] == 1
    assert report["settings"]["model"]["init_args"]["num_steps"] == 2
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == [
        "last.ckpt",
        "step-000002.ckpt",
    ]
    assert "step 2" in capsys.readouterr().out

    validated = call("validate", "--ckpt_path", str(tmp_path / "checkpoints" / "last.ckpt"))
    shown = capsys.readouterr().out
    assert validated.model.rl_step == 2
    assert "Validate metric" not in shown
    assert shown.count("WER") == 1
    assert (tmp_path / "validate" / "report" / "validate.json").exists()


def test_last_is_where_the_run_goes_on(
    call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = no_fit(monkeypatch)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"")
    command = call("fit", "--ckpt_path", "last")
    command.fit(ckpt_path="other.ckpt")
    command.fit()
    assert asked == [str(tmp_path / "checkpoints" / "last.ckpt"), "other.ckpt", None]


def test_guards_are_written_once_and_read_twice(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an anchor in the YAML file."""
    no_fit(monkeypatch)
    guards = {"val/digits/length_ratio": {"drift": 0.1}, "val/digits/loop_rate": {"high": 0.01}}
    stop = {"monitor": "val/digits/wer", "patience": 2, "min_delta": 0.01, "guards": guards}
    callbacks = call(
        "fit", early_stop=stop, checkpoint={"monitor": "val/digits/wer", "guards": guards}
    ).trainer.callbacks
    (stopping,) = (c for c in callbacks if isinstance(c, EarlyStop))
    (saving,) = (c for c in callbacks if isinstance(c, RLCheckpoint))
    assert (stopping.monitor, stopping.patience, stopping.min_delta) == ("val/digits/wer", 2, 0.01)
    expected = {
        "val/digits/length_ratio": Guard(drift=0.1),
        "val/digits/loop_rate": Guard(high=0.01),
    }
    assert stopping.guards == saving.guards == expected


def test_own_callbacks_and_switches_win(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    no_fit(monkeypatch)
    own = [
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"},
        {
            "class_path": "lightning_audiorl.callbacks.RunReport",
            "init_args": {"dirpath": "elsewhere"},
        },
    ]
    trainer = {
        "accelerator": "cpu",
        "logger": False,
        "callbacks": own,
        "enable_progress_bar": False,
    }
    callbacks = call("fit", trainer=trainer).trainer.callbacks
    found = {type(callback) for callback in callbacks}
    assert {ModelCheckpoint, SampleLogger} <= found
    assert not found & {PhaseProgressBar, RLCheckpoint}
    assert [c.dirpath for c in callbacks if isinstance(c, RunReport)] == ["elsewhere"]
