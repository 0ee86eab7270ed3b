"""``audiorl plan`` takes the settings of a run as ``audiorl fit`` takes them: options, and several files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_audiorl import cli
from lightning_audiorl.command_line import of_the_run
from tests.command import class_of, tiny_config


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tiny_config(tmp_path)))
    return path


def planned(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    capsys.readouterr()
    cli.main(["plan", "--audio_s", "1", "--json", "true", *args])
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    return data


def peak(data: dict[str, Any]) -> int:
    return max(plan["max_bytes"] for plan in data["plans"])


def test_settings_are_those_of_fit(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = planned(capsys, "--config", str(config))
    same = planned(capsys, "--config", str(config), "--model.num_steps", "3")
    assert same == plain
    more = planned(
        capsys,
        "--config",
        str(config),
        "--model.init_args.group_size=64",
        "--trainer.precision",
        "bf16-mixed",
        "--export.enabled",
        "false",
        "--overwrite",
    )
    assert peak(more) > peak(plain)


def test_a_second_file_goes_over_the_first(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = planned(capsys, "--config", str(config))
    second = tmp_path / "more.yaml"
    model = class_of("algorithms.GRPO", group_size=64)
    second.write_text(yaml.safe_dump({"model": model}))
    more = planned(capsys, "--config", str(config), f"--config={second}")
    assert more["config"] == str(second)
    assert peak(more) > peak(plain)


def test_each_file_of_a_folder_is_given_the_setting(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config.parent / "two.yaml").write_text(config.read_text())
    capsys.readouterr()
    args = ["--config", str(config.parent), "--audio_s", "1", "--json", "true"]
    cli.main(["plan", *args, "--model.group_size", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert peak(json.loads(lines[0])) == peak(json.loads(lines[1]))


@pytest.mark.parametrize(
    ("argument", "ending"),
    [
        ("--model.init_args.group_sise=3", "GRPO has no setting 'group_sise'; did you mean"),
        ("--modle.num_steps=3", "there is no setting 'modle.num_steps'"),
    ],
)
def test_what_fit_refuses_is_refused(
    argument: str, ending: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["plan", "--config", str(config), argument])
    assert stopped.value.code == 2
    assert ending in capsys.readouterr().err


def test_a_value_goes_where_its_name_goes() -> None:
    own, of_run = of_the_run(["--budget_gb", "20", "--data.init_args.val.dev", "dev.jsonl"])
    assert own == ["--budget_gb", "20"]
    assert of_run == ["--data.init_args.val.dev", "dev.jsonl"]
