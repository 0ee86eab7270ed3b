"""A run that is killed and goes on gives what it would have given; a checkpoint that does not belong is refused."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Callback, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from lightning_audiorl.algorithms import SFT
from lightning_audiorl.models import Finetune, FunAsrNanoPolicy
from tests.algorithms.tiny import FINETUNES, TINY, fit, make_grpo, make_policy
from tests.command import class_of, run, tiny_config, write_manifest

ROOT = Path(__file__).parents[1]
MEASURED = ("seconds", "real_time_factor", "rtf", "hp_metric", "moving/", "peak_mib/")


class KillAt(Callback):
    """SIGKILL to the own process in the midst of an RL step: no exception, no clean-up."""

    def __init__(self, rl_step: int) -> None:
        self.rl_step = rl_step

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        if pl_module.rl_step == self.rl_step:
            os.kill(os.getpid(), signal.SIGKILL)


def long_config(folder: Path, name: str) -> dict[str, Any]:
    """Everything that has a state: schedule, momentum, inner updates, a pooled mix, augmentation, evaluations."""
    config = tiny_config(
        folder,
        num_steps=7,
        num_updates=2,
        optim={"lr": 0.003, "schedule": "cosine", "warmup_steps": 2},
    )
    noise = class_of("data.NonSpeech", num_rows=9, min_s=0.1, max_s=0.3)
    train = [
        {"source": str(folder / "train.jsonl"), "share": {0: 1.0, 3: 0.7}},
        {"source": noise, "share": 0.3},
    ]
    augment = {"speed": [0.9, 1.1], "noise_snr_db": [5, 20]}
    config["data"]["init_args"] |= {"train": train, "pool": 3, "augment": augment}
    logger = class_of(
        "lightning.pytorch.loggers.TensorBoardLogger",
        save_dir=str(folder / name),
        name="",
        version="",
    )
    config["trainer"] |= {
        "default_root_dir": str(folder / name),
        "logger": logger,
        "val_check_interval": 3,
    }
    config["checkpoint"] = {"every_n_steps": 2, "keep": 9}
    return config


def start(
    folder: Path, config: dict[str, Any], name: str, *args: str, kill_at: int | None = None
) -> subprocess.Popen[str]:
    """``audiorl fit`` in a process of its own."""
    if kill_at is not None:
        killer = class_of("tests.test_resume.KillAt", rl_step=kill_at)
        config = config | {"trainer": config["trainer"] | {"callbacks": [killer]}}
    path = folder / f"{name}{len(args)}.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "lightning_audiorl", "fit", "--config", str(path), *args]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def scalars(folder: Path) -> dict[tuple[str, int], set[float]]:
    """Every value of every TensorBoard curve, by name and step; measured times and memory left out."""
    points: dict[tuple[str, int], set[float]] = defaultdict(set)
    files = sorted(folder.glob("events.out.tfevents.*"))
    assert files
    for file in files:
        events = EventAccumulator(str(file), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            if not any(word in tag for word in MEASURED):
                for event in events.Scalars(tag):
                    points[tag, event.step].add(event.value)
    return points


def tensors(value: Any, path: str = "") -> dict[str, Tensor]:
    """Every tensor in a nested structure, by its path."""
    if isinstance(value, Tensor):
        return {path: value}
    pairs = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list | tuple)
        else ()
    )
    return {k: v for key, item in pairs for k, v in tensors(item, f"{path}/{key}").items()}


def timeless(evaluations: list[dict[str, Any]]) -> list[Any]:
    figures = copy.deepcopy(evaluations)
    for record in figures:
        for by_name in record["results"].values():
            for figure in ("real_time_factor", "rtf"):
                by_name.pop(figure, None)
    return [repr(record) for record in figures]


def assert_same_checkpoints(one: Path, other: Path) -> None:
    """Weights, optimiser, schedule, place in the data and evaluations, bit for bit."""
    first, second = load(one), load(other)
    ours, theirs = tensors(first), tensors(second)
    assert ours.keys() == theirs.keys()
    assert any("optimizer_states" in path for path in ours)
    assert all(torch.equal(ours[path], theirs[path]) for path in ours)
    (data,) = (key for key in first if key.endswith("DataModule"))
    for key in ("lr_schedulers", data):
        assert first[key] == second[key]
    assert timeless(first["audiorl"]["evaluations"]) == timeless(second["audiorl"]["evaluations"])


def test_killed_and_resumed_is_bit_for_bit_the_whole_run(tmp_path: Path) -> None:
    """Killed in step 6 (of 7), after the checkpoint of step 4: losses, rewards, figures, weights, optimiser."""
    write_manifest(tmp_path)
    whole, cut = long_config(tmp_path, "whole"), long_config(tmp_path, "cut")
    undisturbed, killed = start(tmp_path, whole, "whole"), start(tmp_path, cut, "cut", kill_at=5)
    assert killed.wait() == -signal.SIGKILL, killed.communicate()[1]
    checkpoints = tmp_path / "cut" / "checkpoints"
    assert load(checkpoints / "last.ckpt")["audiorl"]["rl_step"] == 4
    before = scalars(tmp_path / "cut")
    assert max(step for tag, step in before if tag == "loss") == 5
    for process in (undisturbed, start(tmp_path, cut, "cut", "--ckpt_path", "last")):
        _, errors = process.communicate()
        assert process.returncode == 0, errors

    curves, again = scalars(tmp_path / "whole"), scalars(tmp_path / "cut")
    assert {step for tag, step in curves if tag == "reward/mean"} == set(range(1, 8))
    assert {step for tag, step in curves if tag.startswith("val/tones")} == {0, 3, 6, 7}
    # Curves that do not change are left out.
    assert len({tag for tag, _ in curves}) > 20
    assert all(len(values) == 1 for values in curves.values())
    assert again == curves
    for name in ("step-000006", "last"):
        paths = (tmp_path / run / "checkpoints" / f"{name}.ckpt" for run in ("whole", "cut"))
        assert_same_checkpoints(*paths)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of 2 steps, with its manifest."""
    folder = tmp_path_factory.mktemp("finished")
    write_manifest(folder)
    run(folder, tiny_config(folder))
    return folder


def last(folder: Path) -> str:
    return str(folder / "run" / "checkpoints" / "last.ckpt")


def elsewhere(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    config["trainer"]["default_root_dir"] = str(folder)
    return config


def from_checkpoint(config: dict[str, Any], path: str) -> dict[str, Any]:
    config["model"]["init_args"]["policy"]["init_args"]["init_from"] = path
    return config


def test_checkpoint_holds_no_frozen_weights(finished: Path) -> None:
    checkpoint = load(Path(last(finished)))
    names = checkpoint["state_dict"].keys()
    assert len(names) > 5
    assert not [name for name in names if "audio_tower" in name or "reference" in name]
    assert checkpoint["audiorl"]["start"]["source"]["width"] == 32
    assert len(checkpoint["audiorl"]["start_hash"]) == 32


def test_a_finished_run_takes_no_further_step(finished: Path) -> None:
    module = make_grpo(num_steps=2)
    recorder = fit(module, ckpt_path=last(finished))
    assert module.rl_step == 2
    assert recorder.gradients == []
    held = load(Path(last(finished)))["state_dict"]
    assert all(
        torch.equal(p, held[f"policy.{name}"]) for name, p in module.policy.trainable().items()
    )


def test_a_finished_run_can_be_made_longer(finished: Path, tmp_path: Path) -> None:
    longer = run(
        tmp_path,
        elsewhere(tiny_config(finished, num_steps=4), tmp_path),
        "--ckpt_path",
        last(finished),
    ).model
    whole = run(tmp_path, elsewhere(tiny_config(finished, num_steps=4), tmp_path / "whole")).model
    assert longer.rl_step == 4
    assert [e["rl_step"] for e in longer.evaluations] == [0, 2, 4]
    for name, parameter in whole.policy.trainable().items():
        assert torch.equal(longer.policy.trainable()[name], parameter)


def test_another_start_is_refused(finished: Path) -> None:
    policy = FunAsrNanoPolicy(replace(TINY, seed=1))
    with pytest.raises(
        ValueError, match=r"began from other weights.*content hash \w{32}.*give it as init_from"
    ):
        fit(make_grpo(policy), ckpt_path=last(finished))
    with pytest.raises(ValueError, match="began from other weights"):
        SFT.load_from_checkpoint(last(finished), policy=policy, num_steps=1)
    assert SFT.load_from_checkpoint(last(finished), policy=make_policy(), num_steps=1).rl_step == 2


@pytest.mark.parametrize(
    "finetune", [Finetune(lm="none"), Finetune(projector=False), FINETUNES["lora"]]
)
def test_another_finetune_setting_is_refused(finished: Path, finetune: Finetune) -> None:
    """Fewer trainable tensors too: the others would move what is frozen, and the reference with it."""
    with pytest.raises(
        ValueError,
        match=r"another finetune setting; \d+ trainable tensors differ.*give it as init_f",
    ):
        fit(make_grpo(make_policy(finetune)), ckpt_path=last(finished))


def test_another_algorithm_is_refused_but_may_evaluate(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"a run of GRPO, not of SFT; to begin a new run .* give it as init_from"
    ):
        fit(SFT(make_policy(), 2), ckpt_path=last(finished))
    config = elsewhere(tiny_config(finished, "SFT"), tmp_path)
    evaluated = run(tmp_path, config, "--ckpt_path", last(finished), command="validate").model
    before, after = (
        load(Path(last(finished)))["audiorl"]["evaluations"][-1],
        evaluated.evaluations[-1],
    )
    assert timeless([after]) == timeless([before])


def test_a_foreign_checkpoint_is_refused(finished: Path, tmp_path: Path) -> None:
    checkpoint = load(Path(last(finished)))
    del checkpoint["audiorl"]
    foreign = tmp_path / "foreign.ckpt"
    torch.save(checkpoint, foreign)
    with pytest.raises(ValueError, match="not a checkpoint of this library"):
        fit(make_grpo(), ckpt_path=str(foreign))
    with pytest.raises(ValueError, match=r"foreign.ckpt is not a checkpoint of this library"):
        FunAsrNanoPolicy(str(foreign))
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*gone.ckpt"):
        FunAsrNanoPolicy(str(tmp_path / "gone.ckpt"))


def test_init_from_begins_a_new_run_with_the_weights(finished: Path, tmp_path: Path) -> None:
    """Counters, optimiser and reference are new; a run that began so resumes, and can be begun from in its turn."""
    config = from_checkpoint(
        elsewhere(tiny_config(finished, num_steps=1), tmp_path), last(finished)
    )
    second = run(tmp_path, config).model
    held = load(Path(last(finished)))["state_dict"]
    assert second.rl_step == 1
    assert second.step_metrics["kl"] == 0.0
    assert [e["rl_step"] for e in second.evaluations] == [0, 1]
    for name, value in zip(second.policy.trainable(), second.reference.tensors(), strict=True):
        assert torch.equal(value, held[f"policy.{name}"])

    checkpoint = str(tmp_path / "checkpoints" / "last.ckpt")
    resumed = make_grpo(FunAsrNanoPolicy(last(finished)), num_steps=2)
    assert len(fit(resumed, ckpt_path=checkpoint).metrics) == 1
    assert resumed.rl_step == 2
    third = FunAsrNanoPolicy(checkpoint)
    assert third.start.record()["checkpoints"] == [last(finished), checkpoint]
    assert all(
        torch.equal(p, second.policy.trainable()[name]) for name, p in third.trainable().items()
    )
