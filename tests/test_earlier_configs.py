"""Configs as they were written with whole class paths and a logger of their own: they parse, and mean the same."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_audiorl import ops
from lightning_audiorl.cli import give_logger
from lightning_audiorl.models import Finetune
from tests.command import class_of, parser, run, tiny_config, write_manifest

ROOT = Path(__file__).parents[1]
#: Verbatim from the repository's history.
EARLIER = sorted((Path(__file__).parent / "earlier_configs").glob("*.yaml"))
LOGGER_SETTINGS = ("save_dir", "name", "version")


def with_classes(settings: Any) -> Any:
    """The settings with each class in the place of its path: a class that has moved has several."""
    if isinstance(settings, list | tuple):
        return [with_classes(item) for item in settings]
    if not isinstance(settings, dict):
        return settings

    out = {key: with_classes(value) for key, value in settings.items()}
    if "class_path" in out:
        module, _, name = out["class_path"].rpartition(".")
        out["class_path"] = getattr(importlib.import_module(module), name)
    return out


def with_judges(settings: Any, judges: dict[str, Any]) -> Any:
    """The settings with each judge in the places where its name stands."""
    if isinstance(settings, list):
        return [with_judges(item, judges) for item in settings]
    if not isinstance(settings, dict):
        return settings

    out = {key: with_judges(value, judges) for key, value in settings.items()}
    for key in ("judge", "held_out_judge", "encoder", "held_out_encoder"):
        name = out.get(key)
        if isinstance(name, str):
            out[key] = judges[name] | {"init_args": judges[name]["init_args"] | {"name": name}}
    return out


def resolved(path: Path) -> dict[str, Any]:
    """The settings of ``audiorl fit --config``, with what constructors take for null put in."""
    settings = parser().parse_args(["fit", "--config", str(path)]).fit
    give_logger(settings.trainer)
    found: dict[str, Any] = settings.clone().as_dict()
    found.pop("config")

    logger = found["trainer"]["logger"]["init_args"]
    found["trainer"]["logger"]["init_args"] = {name: logger[name] for name in LOGGER_SETTINGS}

    model = found["model"]["init_args"]
    judges = model.pop("judges", None)
    if judges:
        model = found["model"]["init_args"] = with_judges(model, judges)
    if "objective" in model:
        objective = model["objective"] or {"init_args": vars(ops.GRPO())}
        model["objective"] = dict(objective["init_args"])
    if "policy" in model:
        finetune = model["policy"]["init_args"]["finetune"] or vars(Finetune())
        model["policy"]["init_args"]["finetune"] = dict(finetune)
    return cast(dict[str, Any], with_classes(found))


def test_earlier_configs_are_found() -> None:
    assert len(EARLIER) >= 5
    assert all("lightning_audiorl." in path.read_text() for path in EARLIER)


@pytest.mark.parametrize("path", EARLIER, ids=lambda path: path.stem)
def test_an_earlier_config_means_what_the_present_one_does(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    present = ROOT / "configs" / (path.stem.replace("-", "/") + ".yaml")
    meant = resolved(present)
    if path.stem == "quickstart":
        # What has changed since: it is shorter, and an answer that runs away no longer outweighs its group.
        assert meant["model"]["init_args"]["num_steps"] == 30
        meant["model"]["init_args"]["num_steps"] = 60
        accuracy = meant["model"]["init_args"]["rewards"]["init_args"]["rewards"][0]["init_args"]
        assert accuracy["floor"] == -1.0
        accuracy["floor"] = None
    assert resolved(path) == meant


def test_present_configs_name_classes_alone_and_leave_the_logger_to_the_program() -> None:
    texts = {path: path.read_text() for path in (ROOT / "configs").rglob("*.yaml")}
    assert len(texts) > 40
    assert [
        path for path, text in texts.items() if "lightning_audiorl." in text or "Logger" in text
    ] == []


@pytest.mark.parametrize(("name", "lines"), [("quickstart", 35), ("fun_asr_nano", 20)])
def test_what_a_newcomer_reads_is_short(name: str, lines: int) -> None:
    text = (ROOT / "configs" / f"{name}.yaml").read_text()
    assert len([line for line in text.splitlines() if line and not line.startswith("#")]) <= lines
    assert max(map(len, text.splitlines())) <= 130


def test_a_run_logs_to_its_own_folder_unless_told_otherwise(tmp_path: Path) -> None:
    """Curves stand beside the checkpoints, and the saved settings say so; a logger of the user's stays."""
    write_manifest(tmp_path)
    config = tiny_config(tmp_path, "SFT", num_steps=1)
    del config["trainer"]["logger"]
    cli = run(tmp_path, config)
    assert isinstance(cli.trainer.logger, TensorBoardLogger)
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]["logger"]
    assert saved["class_path"] == "lightning.pytorch.loggers.TensorBoardLogger"
    assert {name: saved["init_args"][name] for name in LOGGER_SETTINGS} == {
        "save_dir": str(tmp_path / "run"),
        "name": "",
        "version": "",
    }

    own = class_of("lightning.pytorch.loggers.CSVLogger", save_dir=str(tmp_path / "own"))
    for logger, kinds in ((own, [CSVLogger]), (False, [])):
        config["trainer"] |= {"logger": logger, "default_root_dir": str(tmp_path / "other")}
        assert [type(made) for made in run(tmp_path, config).trainer.loggers] == kinds
    assert not list((tmp_path / "other").glob("events.out.tfevents.*"))
