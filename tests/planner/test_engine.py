"""``audiorl plan`` of runs whose completions come from another engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lightning_audiorl import cli
from tests.command import tiny_config

ENGINE = {"class_path": "VllmEngine", "init_args": {"cache_gib": 2, "dtype": "bfloat16"}}


def planned(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    engine: dict | None,
    *more: str,
    precision: str = "",
) -> str:
    config = tiny_config(folder)
    if precision:
        config["trainer"]["precision"] = precision
    if engine is not None:
        config["model"]["init_args"]["engine"] = engine
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    cli.main(["plan", "--config", str(path), "--audio_s", "1", *more])
    return capsys.readouterr().out


def test_an_engine_takes_memory_in_every_phase(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = json.loads(planned(tmp_path, capsys, None, "--json", "true"))
    other = json.loads(planned(tmp_path, capsys, ENGINE, "--json", "true"))
    assert "engine" not in own

    held = other["engine"]["weight_bytes"] + other["engine"]["cache_bytes"]
    assert other["engine"]["cache_bytes"] == 2 * 2**30
    assert other["parts"]["engine"] == held
    for before, after in zip(own["plans"], other["plans"], strict=True):
        for phase, size in before["resident_bytes"].items():
            assert after["resident_bytes"][phase] == size + held
        assert after["moving_s"] == before["moving_s"]
    # No key-value cache of ours.
    assert other["working_bytes"]["rollout"] < own["working_bytes"]["rollout"]

    # In bfloat16, and of the language model alone; a head that is the embedding is a matrix of its own there.
    lm = own["parts"]["lm (trainable)"]
    assert lm // 2 < other["engine"]["weight_bytes"] < lm


def test_one_on_another_device_is_told_but_not_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = {**ENGINE, "init_args": {**ENGINE["init_args"], "devices": "1"}}
    text = planned(tmp_path, capsys, elsewhere)
    assert "Engine on device 1: " in text
    assert "2.00 GiB of keys and values" in text
    assert "| engine " not in text


def test_engines_that_are_shared_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    addresses = ["10.0.0.2:5555", "10.0.0.3:5555", "10.0.0.2:5555"]
    shared = {"address": addresses, "key_file": "engine.key"}
    text = planned(tmp_path, capsys, {**ENGINE, "init_args": {**ENGINE["init_args"], **shared}})
    assert "Engine at 10.0.0.2:5555, 10.0.0.3:5555: " in text
    assert "| engine " not in text


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_copies_of_weights_take_memory_in_the_rollout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    copying = {"class_path": "LocalEngine", "init_args": {"copy_weights": True}}
    plain, copied = (
        json.loads(planned(tmp_path, capsys, engine, "--json", "true", precision=precision))
        for engine in ({"class_path": "LocalEngine"}, copying)
    )

    # Everything trains: copies last as long as the rollout.
    added = {
        phase: copied["working_bytes"][phase] - size
        for phase, size in plain["working_bytes"].items()
    }
    in_rollout = added.pop("rollout")
    lm = plain["parts"]["lm (trainable)"]
    share = 1.0 if precision == "32-true" else 0.5
    assert 0.5 * share * lm < in_rollout <= share * lm
    assert not any(added.values())
    assert "weight copies" not in copied["parts"]
