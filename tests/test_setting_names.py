"""Misspelt names in YAML are found without an import, and what is right is never called wrong."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_audiorl.cli import _NAMED_ALONE
from lightning_audiorl.command_line import misspelt
from lightning_audiorl.screen import settings_of as imported_settings
from lightning_audiorl.setting_names import _SECTIONS, first_mistake, settings_of
from lightning_audiorl.training import CALLBACKS
from tests.test_command_line import run

ROOT = Path(__file__).parents[1]
CONFIGS = [*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("tests/earlier_configs/**/*.yaml")]

GOOD = """
trainer: {accelerator: cpu}
model:
  class_path: GRPO
  init_args:
    policy: {class_path: FunAsrNanoPolicy, init_args: {init_from: folder}}
    optim: {lr: 1.0e-4}
    rewards: {rewards: [{class_path: Accuracy, init_args: {floor: -1.0}}]}
data:
  class_path: AsrDataModule
  init_args:
    batch_size: 4
    train: [{source: {class_path: EspeakCorpus, init_args: {num_rows: 4}}, share: 1.0}]
report: {audio: none}
"""


def test_no_setting_of_a_class_is_missing_from_what_its_source_shows() -> None:
    """Those that YAML may name: what is right is never called a slip."""
    num_certain = 0
    for package in ("algorithms", *_NAMED_ALONE):
        module = importlib.import_module(f"lightning_audiorl.{package}")
        for name in module.__all__:
            found = getattr(module, name)
            certain = settings_of(name)
            if inspect.isclass(found) and certain is not None:
                num_certain += 1
                names = imported_settings(f"{found.__module__}.{found.__name__}")
                # Of two classes of one name, or a base that takes more, the settings of both: none is missing.
                assert set(certain) >= set(names), name
    assert num_certain > 100


def test_sections_have_the_classes_that_the_command_line_gives_them() -> None:
    classes = {name: callback.__name__ for name, callback in CALLBACKS.items()}
    assert classes | {"trainer": "Trainer"} == _SECTIONS
    assert set(settings_of("Trainer") or ()) == set(
        imported_settings("lightning.pytorch.trainer.trainer.Trainer")
    )


def test_nothing_is_wrong_with_what_ships() -> None:
    assert len(CONFIGS) > 40
    for path in CONFIGS:
        settings: Any = yaml.safe_load(path.read_text())
        assert first_mistake(settings) is None, path


@pytest.mark.fault(
    "Settings and messages",
    "A misspelt class, or setting of a class, in a YAML file",
    "the nearest name and its place in three lines, in well under a second, before torch is imported",
)
@pytest.mark.parametrize(
    ("old", "new", "where", "reason"),
    [
        ("policy:", "polcy:", "model: GRPO", "GRPO has no setting 'polcy'; did you mean 'policy'?"),
        ("GRPO", "GPRO", "model", "there is no class 'GPRO'; did you mean 'GSPO' or 'GRPO'?"),
        ("init_from", "from", "model: GRPO > policy: FunAsrNanoPolicy", "no setting 'from'"),
        (
            "lr:",
            "rl:",
            "model: GRPO > optim: Optim",
            "Optim has no setting 'rl'; it has: lr, schedule,",
        ),
        (
            "floor",
            "flor",
            "model: GRPO > rewards: RewardMix > rewards: Accuracy",
            "Accuracy has no setting 'flor'; did you mean 'floor'?",
        ),
        ("batch_size", "batchsize", "data: AsrDataModule", "did you mean 'batch_size'?"),
        ("num_rows", "rows", "data: AsrDataModule > train: EspeakCorpus", "no setting 'rows'"),
        ("accelerator", "acelerator", "trainer", "did you mean 'accelerator'?"),
        ("audio: none", "sound: none", "report", "RunReport has no setting 'sound'"),
    ],
)
def test_a_misspelt_name_is_found(
    old: str, new: str, where: str, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(GOOD)
    assert misspelt("fit", ["--config", str(file)]) == []
    file.write_text(GOOD.replace(old, new))
    place, error = misspelt("fit", ["--config", str(file)])
    assert place == f"in {file}, {where}:"
    assert reason in error


def test_it_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(GOOD.replace("batch_size", "batchsize"))
    code, _, err = run("fit", "--config", str(file))
    assert code == 2
    assert len(err.splitlines()) == 3
    assert "AsrDataModule has no setting 'batchsize'; did you mean 'batch_size'?" in err


@pytest.mark.parametrize(
    "settings",
    [
        # Of somebody else, whose module may have more classes.
        {"model": {"class_path": "mine.Model", "init_args": {"x": {"class_path": "Other"}}}},
        # It hands on what it does not know to a base that is not ours.
        {"data": {"class_path": "AsrDataModule", "init_args": {"val": {"dev": {"any": 1}}}}},
        {"model": {"init_args": {"num_steps": 4}}, "data": None},
        {"model": {"class_path": 3}, "trainer": [1], "seed_everything": 1},
        {"trainer": {"logger": {"class_path": "TensorBoardLogger", "init_args": {"x": 1}}}},
        {"model": {"class_path": "GRPO", "init_args": {"eval_decodings": {"mine": {"x": 1}}}}},
    ],
)
def test_what_may_be_right_is_left_to_the_parser(settings: dict[str, Any]) -> None:
    assert first_mistake(settings) is None
