"""Python without YAML: names at the top, `train`, functions as rewards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lightning_audiorl
from lightning_audiorl import GRPO, Accuracy, AsrDataModule, Hypothesis, train
from lightning_audiorl.callbacks import HackingWatch, RLCheckpoint
from lightning_audiorl.models import FunAsrNanoPolicy, TinyFunAsrNano
from lightning_audiorl.rewards import FunctionReward, RewardMix
from lightning_audiorl.training import reward_mix
from tests.command import write_manifest


def brief(hypothesis: Hypothesis) -> float:
    return -0.1 * len(hypothesis.text.split())


def test_every_name_of_the_package_is_there() -> None:
    assert all(getattr(lightning_audiorl, name) is not None for name in lightning_audiorl.__all__)
    assert lightning_audiorl.GRPO is GRPO
    with pytest.raises(AttributeError, match="has no attribute 'GRPOO'"):
        lightning_audiorl.__getattr__("GRPOO")


def test_the_package_itself_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'lightning', 'transformers', 'numpy'}"
    code = f"import sys, lightning_audiorl; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_functions_become_rewards() -> None:
    mix = reward_mix([Accuracy(), brief])
    assert [reward.name for reward in mix.rewards] == ["accuracy", "brief"]
    assert isinstance(mix.rewards[1], FunctionReward)
    assert reward_mix(mix) is mix
    with pytest.raises(ValueError, match="a lambda has no name for the log"):
        reward_mix([lambda hypothesis: 0.0])


def run(folder: Path, num_steps: int, **settings: Any) -> lightning_audiorl.Run:
    manifest = write_manifest(folder)
    data = AsrDataModule(str(manifest), val={"dev": str(manifest)}, batch_size=2)
    more = {"accelerator": "cpu", "enable_progress_bar": False}
    return train(
        FunAsrNanoPolicy(TinyFunAsrNano()),
        data,
        [Accuracy(floor=-1.0), brief],
        num_steps=num_steps,
        folder=folder / "run",
        group_size=2,
        trainer=more,
        **settings,
    )


def test_a_run_from_python_leaves_what_one_from_yaml_leaves(tmp_path: Path) -> None:
    done = run(tmp_path, 2)
    assert done.folder == tmp_path / "run"
    assert done.history["step"] == [1.0, 2.0]
    assert len(done.history["reward/brief/mean"]) == 2
    assert [one["rl_step"] for one in done.evaluations] == [0, 2]
    assert "dev" in done.table()
    assert done.verdict.startswith("Against the start (step 0): ")
    [watch] = [one for one in done.trainer.callbacks if isinstance(one, HackingWatch)]
    watch.alerts.append({"rl_step": 2, "text": "look"})
    assert done.alerts == watch.alerts
    for name in ("checkpoints/last.ckpt", "report/report.md", "export/config.json"):
        assert (done.folder / name).is_file(), name

    # A second run has a folder of its own, one that goes on has the first one's.
    assert run(tmp_path, 2).folder == tmp_path / "run-2"
    longer = run(tmp_path, 3, resume=True)
    assert longer.folder == done.folder
    assert longer.history["step"] == [1.0, 2.0, 3.0]


def test_a_callback_of_the_user_takes_the_place_of_ours(tmp_path: Path) -> None:
    mine = RLCheckpoint(every_n_steps=1)
    done = run(tmp_path, 1, callbacks=[mine])
    kept = [one for one in done.trainer.callbacks if isinstance(one, RLCheckpoint)]  # type: ignore[attr-defined]
    assert kept == [mine]


def test_what_would_begin_anew_in_silence_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, 1)
    kept = done.folder / "checkpoints" / "last.ckpt"
    kept.unlink()
    with pytest.raises(FileNotFoundError, match=r"step-000001\.ckpt is there, give that"):
        run(tmp_path, 2, resume=True)

    policy = FunAsrNanoPolicy(TinyFunAsrNano())
    elsewhere = {"default_root_dir": str(tmp_path / "other")}
    with pytest.raises(ValueError, match="give `callbacks` and `folder` to train itself"):
        train(policy, AsrDataModule(), [brief], num_steps=1, trainer=elsewhere)


def test_a_mix_is_taken_as_it_is(tmp_path: Path) -> None:
    assert reward_mix(RewardMix([Accuracy(weight=2.0)])).rewards[0].weight == 2.0
