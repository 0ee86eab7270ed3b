"""``audiorl`` from a YAML file to weights; what its callbacks write is tested in ``tests/callbacks``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml
from transformers import FunAsrNanoForConditionalGeneration

from lightning_audiorl import cli, ops
from lightning_audiorl.algorithms import SFT, Optim
from lightning_audiorl.losses.sample_filters import MinRewardSpread
from tests.command import class_of, run, tiny_config, write_manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest."""
    folder = tmp_path_factory.mktemp("cli")
    write_manifest(folder)
    return folder


OBJECTIVES: dict[str, dict[str, Any]] = {
    "GRPO": {"clip_high": 0.3},
    "DrGRPO": {},
    "DAPO": {"clip_low": 0.1},
    "GSPO": {},
    "CISPO": {"clip_high": 4.0},
    "MWER": {},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_from_yaml(name: str, folder: Path) -> None:
    """With its own defaults where YAML is silent, not those of another objective."""
    objective = class_of(f"ops.{name}", **OBJECTIVES[name])
    config = tiny_config(folder, objective=objective, num_updates=2, num_steps=1)
    config["data"]["init_args"].pop("val")
    config["trainer"] |= {"enable_checkpointing": False}
    model: Any = run(folder, config).model
    assert model.losses[0].objective == getattr(ops, name)(**OBJECTIVES[name])
    assert model.rl_step == 1
    assert model.step_metrics["grad_norm"] > 0
    assert model.step_metrics["skipped_updates"] == 0


def test_nested_settings_arrive(folder: Path) -> None:
    config = tiny_config(
        folder,
        filters=[class_of("algorithms.MinRewardSpread", spread=0.25)],
        optim={"lr": 0.02, "schedule": "linear", "warmup_steps": 3},
        num_steps=1,
    )
    command = run(folder, config, "--seed_everything", "11", "--model.init_args.beta", "0.5")
    model: Any = command.model
    assert list(model.losses[0].advantages.filters) == [MinRewardSpread(0.25)]
    assert model.optim == Optim(0.02, "linear", 3)
    assert model.losses[0].beta == 0.5
    assert model.seed == command.datamodule.seed == 11
    assert model.sampler.decoding.max_new_tokens == 5
    assert [(r.name, r.weight) for r in model.rewards.rewards] == [
        ("accuracy", 1.0),
        ("hallucination", 0.5),
    ]
    assert (folder / "run" / "config.yaml").exists()


def test_a_list_of_losses_trains_from_yaml(folder: Path) -> None:
    """By class name alone, with settings of their own, those of sampler and combiner, and resumed."""
    config = tiny_config(folder, num_steps=2)
    model = config["model"]["init_args"]
    config["model"]["class_path"] = "RLModule"
    model["sampler"] = {name: model.pop(name) for name in ("group_size", "decoding")}
    model["losses"] = [
        {"class_path": "PolicyGradient", "init_args": {"beta": 0.1, "objective": "DAPO"}},
        "CrossEntropy",
    ]
    model["combiner"] = {"weight": {"start": 0.5, "end": 0.0, "kind": "linear"}}
    config["checkpoint"] = {"every_n_steps": 1, "keep": 9}
    module: Any = run(folder, config).model
    assert [type(loss).__name__ for loss in module.losses] == ["PolicyGradient", "CrossEntropy"]
    assert module.losses[0].objective == ops.DAPO()
    assert module.sampler.group_size == 4
    assert module.step_metrics["sft/weight"] == 0.25
    assert module.step_metrics["sft/tokens"] > 0

    checkpoint = folder / "run" / "checkpoints" / "step-000001.ckpt"
    resumed: Any = run(folder, config, "--ckpt_path", str(checkpoint)).model
    for name, parameter in module.policy.trainable().items():
        assert torch.equal(parameter, resumed.policy.trainable()[name])


def test_same_command_same_weights(folder: Path, tmp_path: Path) -> None:
    first, second = (run(tmp_path, tiny_config(folder)).model.policy.trainable() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_trained_validated_exported_and_loaded(folder: Path, tmp_path: Path) -> None:
    """The chain of a user: fit, export the checkpoint, evaluate the export, load it in transformers."""
    config = tiny_config(folder, "SFT")
    config["trainer"]["default_root_dir"] = str(tmp_path / "run")
    trained: Any = run(tmp_path, config).model
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    arguments = [
        "--policy",
        "lightning_audiorl.models.FunAsrNanoPolicy",
        "--policy.init_from",
        str(checkpoint),
    ]
    cli.main(["export", *arguments, "--folder", str(tmp_path / "out")])

    config["model"]["init_args"]["policy"]["init_args"]["init_from"] = str(tmp_path / "out")
    evaluated: Any = run(tmp_path, config, command="validate").model
    assert isinstance(evaluated, SFT)
    first, second = (
        model.evaluations[-1]["results"]["tones"]["wer"] for model in (trained, evaluated)
    )
    assert first == second
    assert trained.last_hypotheses == evaluated.last_hypotheses

    loaded = FunAsrNanoForConditionalGeneration.from_pretrained(tmp_path / "out")
    ours = trained.policy.model.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in loaded.state_dict().items())


def test_classes_of_the_working_folder_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A console script has the folder of its interpreter in the path, not the one that it is called in."""
    (tmp_path / "my_rewards_here.py").write_text(
        "from lightning_audiorl.rewards import Reward\n\n\nclass Mine(Reward):\n"
        "    def __init__(self, weight: float = 1.0) -> None:\n        super().__init__(weight, 'mine')\n\n"
        "    def score(self, hypotheses):\n        return [1.0 for _ in hypotheses]\n"
    )
    write_manifest(tmp_path)
    rewards = class_of("rewards.RewardMix", rewards=[{"class_path": "my_rewards_here.Mine"}])
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tiny_config(tmp_path, rewards=rewards)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    monkeypatch.setattr(sys, "argv", ["audiorl", "fit", "--config", "c.yaml", "--print_config"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    assert "my_rewards_here.Mine" in capsys.readouterr().out


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with patch.object(sys, "argv", ["audiorl", "--help"]):
        cli.main()
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("fit", "validate", "test", "export", "plan"))
    assert "predict Decode rows" in " ".join(shown.split())
