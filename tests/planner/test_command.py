"""``audiorl plan`` from a YAML file to its table, and what it says of bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_audiorl import cli
from lightning_audiorl.commands.plan import read_settings, trace
from lightning_audiorl.commands.plan.meter import Meter
from lightning_audiorl.commands.plan.skeleton import build_skeleton
from tests.command import class_of, tiny_config


def write(folder: Path, config: dict[str, Any]) -> str:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def test_tables_and_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, tiny_config(tmp_path))
    args = ["plan", "--config", path, "--audio_s", "1", "--device_memory_gb", "2"]
    cli.main([*args, "--json", "true"])
    data = json.loads(capsys.readouterr().out)
    assert [(p["sharding"], p["placement"]) for p in data["plans"]] == [
        ("single", "resident"),
        ("single", "auto"),
        ("single", "offload"),
    ]
    resident, _, offload = data["plans"]
    assert resident["max_bytes"] > offload["max_bytes"] > 0
    assert offload["moving_s"] > resident["moving_s"] == 0
    whole = sum(data["parts"].values())
    assert resident["resident_bytes"]["update"] == whole
    # The encoded prompts are made in the encode phase: they count there as its working memory.
    assert resident["resident_bytes"]["encode"] == whole - data["parts"]["context"]
    assert set(data["parts"]) >= {"encoder", "lm (trainable)", "reference", "optimizer", "context"}

    cli.main([*args, "--num_devices", "2"])
    said = capsys.readouterr().out
    for piece in (
        "2 prompts x 4 samples",
        "| single ",
        "| ddp x 2 ",
        "| fsdp x 2 ",
        "fits into 1 GiB",
    ):
        assert piece in said
    assert (
        len(
            [line for line in said.splitlines() if line.startswith(("| single", "| ddp", "| fsdp"))]
        )
        == 9
    )


def test_read_what_fit_reads(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, group_size=6, beta=0.0, micro_batch_size=3, max_tokens=99)
    config["trainer"]["precision"] = "bf16-mixed"
    read = read_settings(write(tmp_path, config))
    assert (read.group_size, read.beta, read.micro_batch_size, read.max_tokens) == (6, 0.0, 3, 99)
    assert (read.autocast, read.batch_size) == ("bfloat16", 2)
    assert read_settings(write(tmp_path, config), batch_size=7).batch_size == 7
    sft = read_settings(write(tmp_path, tiny_config(tmp_path, "SFT")))
    assert not sft.needs_rollout
    assert sft.group_size == 1


def refused(folder: Path, config: dict[str, Any], **changes: Any) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        trace(read_settings(write(folder, config), **changes))
    return str(error.value)


def test_bad_settings_are_named(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    assert "batch_size must be at least 1, got 0" in refused(tmp_path, config, batch_size=0)
    config["trainer"]["precision"] = "16-mixed"
    assert "16-mixed" in refused(tmp_path, config)
    config = tiny_config(tmp_path)
    config["model"]["init_args"]["group_sise"] = 3
    assert "group_sise" in refused(tmp_path, config)
    assert "'model'" in refused(tmp_path, {"data": {}})
    with pytest.raises(FileNotFoundError, match=r"no config .*absent\.yaml"):
        read_settings(tmp_path / "absent.yaml")


def test_a_folder_without_config_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    config = tiny_config(
        tmp_path, policy=class_of("models.FunAsrNanoPolicy", init_from=str(tmp_path / "model"))
    )
    assert "has no config.json" in refused(tmp_path, config)


def test_a_policy_of_another_kind_is_named() -> None:
    class Another:
        pass

    with pytest.raises(ValueError, match="Another is no CachedPromptPolicy, whose rollout"):
        build_skeleton(Another, Meter())  # type: ignore[arg-type]


def test_audio_that_the_encoder_does_not_take(tmp_path: Path) -> None:
    read = read_settings(write(tmp_path, tiny_config(tmp_path)))
    with pytest.raises(ValueError, match="the encoder takes 1 to 1024"):
        trace(read, audio_s=100.0)
    with pytest.raises(ValueError, match="audio_s > 0"):
        trace(read, audio_s=0.0)
