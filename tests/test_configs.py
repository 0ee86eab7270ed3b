"""Every shipped YAML file parses with the command that it or a document names, and what is misspelt is refused."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from lightning_audiorl import algorithms
from lightning_audiorl.cli import command_parser
from lightning_audiorl.commands import COMMANDS
from lightning_audiorl.judges import AsrJudge
from tests.command import parser, tiny_config
from tests.models.tts_records import ToneVoice


class Paraformer(AsrJudge):
    """Stands for a user's judge."""

    def __init__(self, model: str = "", name: str = "paraformer") -> None:
        super().__init__(name, sample_rate_hz=16000)

    def listen(self, waveforms: list[Any], rows: list[Any]) -> list[str | None]:
        return [None for _ in waveforms]


ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
DOCUMENTS = [*CONFIGS, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile"]
COMMAND = re.compile(
    r"audiorl (fit|validate|test|predict|calibrate) (.+?)[ \t]*(?:#.*|`.*)?$", re.MULTILINE
)


def commands() -> dict[str, list[str]]:
    """Every ``audiorl`` command with a config in YAML headers and documents: name for the test -> arguments.

    ``my.yaml`` of the documents is a copy of ``configs/fun_asr_nano.yaml``.
    """
    found = {}
    for document in DOCUMENTS:
        text = document.read_text().replace("\\\n#", " ").replace("\\\n", " ")
        text = text.replace("--config my.yaml", "--config configs/fun_asr_nano.yaml")
        for subcommand, rest in COMMAND.findall(text):
            # Those with a file that the reader writes are followed by tests/test_howtos.py.
            files = re.findall(r"--config (\S+)", rest)
            if files and all(file.startswith("configs/") for file in files):
                found[f"{document.relative_to(ROOT)}: {subcommand} {rest}"] = [
                    subcommand,
                    *shlex.split(rest),
                ]
    return found


def test_configs_and_their_commands_are_found() -> None:
    assert len(CONFIGS) >= 7
    assert len(commands()) >= len(CONFIGS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_command_uses_it(path: Path) -> None:
    assert [
        name for name, arguments in commands().items() if str(path.relative_to(ROOT)) in arguments
    ]


def accuracies(node: Any) -> list[Any]:
    """Every `Accuracy` of a file, as it stands there."""
    if node == "Accuracy" or (isinstance(node, dict) and node.get("class_path") == "Accuracy"):
        return [node]
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [found for part in parts for found in accuracies(part)]


# The tables of docs/results.md were made with these as they stand.
MEASURED = {ROOT / "configs/fsdd/grpo.yaml", ROOT / "configs/fsdd/mwer.yaml"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_accuracy_has_a_floor(path: Path) -> None:
    """Without one an answer of a thousand words outweighs all others of its group."""
    if path in MEASURED:
        pytest.skip("its figures are committed")
    found = accuracies(yaml.safe_load(path.read_text()))
    assert all(isinstance(one, dict) and "floor" in one["init_args"] for one in found)


@pytest.mark.parametrize("name", commands())
def test_command_parses(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    # The class that a user writes over the package of CosyVoice 2.
    monkeypatch.setitem(sys.modules, "my_codec", SimpleNamespace(MyCosyVoice2=ToneVoice))
    # And that over FunASR, which docs/evaluation.md spells out.
    monkeypatch.setitem(sys.modules, "my_judges", SimpleNamespace(Paraformer=Paraformer))
    subcommand, *arguments = commands()[name]
    try:
        if subcommand in COMMANDS:
            assert command_parser(subcommand).parse_args(arguments).out
            return
        parsed = parser().parse_args(commands()[name])
    except SystemExit:
        pytest.fail(capsys.readouterr().err)
    settings = parsed[parsed.subcommand]

    # A policy, or a part of the system.
    trains = settings.model.class_path.rpartition(".")[2]
    assert hasattr(algorithms, trains) or trains.endswith("Training")
    assert settings.model.init_args.seed == settings.data.init_args.seed == settings.seed_everything
    assert settings.data.init_args.val


def at(config: dict[str, Any], *keys: str | int) -> Any:
    for key in keys:
        config = config[key]  # type: ignore[index,assignment]
    return config


REWARDS = ("model", "init_args", "rewards", "init_args", "rewards")
MISSPELT = {
    ("trainer",): "max_epoch",
    ("model", "init_args"): "num_step",
    ("model", "init_args", "optim"): "learning_rate",
    ("model", "init_args", "decoding"): "temprature",
    ("model", "init_args", "policy", "init_args"): "init_form",
    ("model", "init_args", "policy", "init_args", "init_from", "init_args"): "widht",
    (*REWARDS, 1, "init_args"): "wieght",
    ("data", "init_args"): "batchsize",
    ("report",): "enable",
    (): "modle",
}


def refusal(config: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``audiorl fit`` says of a config that it does not take."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args(["fit", "--config", str(path)])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_the_config_that_is_spoilt_below_is_a_good_one(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tiny_config(tmp_path)))
    assert parser().parse_args(["fit", "--config", str(path)]).fit.model.init_args.seed == 7


@pytest.mark.parametrize("place", MISSPELT, ids=lambda place: ".".join(map(str, place)) or "top")
def test_a_misspelt_key_is_named(place: tuple[str | int, ...], tmp_path: Path, capsys: Any) -> None:
    config = tiny_config(tmp_path)
    at(config, *place)[MISSPELT[place]] = 1
    assert MISSPELT[place] in refusal(config, tmp_path, capsys)


CLASS_PATHS = {
    ("model",): "lightning_audiorl.algorithms.GPRO",
    ("model", "init_args", "policy"): "lightning_audiorl.models.FunAsrNano",
    (*REWARDS, 0): "lightning_audiorl.rewards.Acuracy",
    ("data",): "lightning_audiorl.data.AsrDataModul",
}


@pytest.mark.parametrize("place", CLASS_PATHS, ids=lambda place: ".".join(map(str, place)))
def test_a_misspelt_class_is_named(
    place: tuple[str | int, ...], tmp_path: Path, capsys: Any
) -> None:
    config = tiny_config(tmp_path)
    at(config, *place)["class_path"] = CLASS_PATHS[place]
    assert CLASS_PATHS[place] in refusal(config, tmp_path, capsys)


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        (("model", "init_args"), "num_steps", "many"),
        (("model", "init_args", "optim"), "schedule", "stairs"),
        (("model", "init_args", "decoding"), "top_k", 0.5),
        (("data", "init_args"), "on_too_long", "cut"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(
    place: tuple[str, ...], key: str, value: Any, tmp_path: Path, capsys: Any
) -> None:
    config = tiny_config(tmp_path)
    at(config, *place)[key] = value
    said = refusal(config, tmp_path, capsys)
    assert key in said
    assert str(value) in said
