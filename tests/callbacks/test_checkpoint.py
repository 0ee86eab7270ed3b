from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer

from lightning_audiorl.callbacks import Export, HackingWatch, RLCheckpoint, RunReport
from lightning_audiorl.engine import RLModule
from tests.callbacks import runs
from tests.callbacks.runs import PutMetrics
from tests.helpers import assert_close


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def trained(checkpoint: dict[str, Any]) -> int:
    return checkpoint["audiorl"]["rl_step"]


@pytest.fixture(scope="module")
def whole(root: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RLModule, list[Any]]:
    """A run of four steps that nobody disturbs, with evaluations after steps 2 and 4."""
    folder = tmp_path_factory.mktemp("whole")
    callbacks = [
        RunReport(enabled=False),
        HackingWatch(window=1),
        RLCheckpoint(every_n_steps=2, keep=9),
    ]
    return folder, runs.fit(folder, root, *callbacks, val_check_interval=2), callbacks


def test_saves_by_rl_step_and_keeps_the_last(root: str, tmp_path: Path) -> None:
    saving = RLCheckpoint(every_n_steps=1, keep=2)
    runs.fit(tmp_path, root, saving, module=runs.grpo(num_updates=2), limit_val_batches=0)
    assert names(tmp_path) == ["last.ckpt", "step-000003.ckpt", "step-000004.ckpt"]
    assert trained(load(tmp_path / "checkpoints" / "last.ckpt")) == 4
    assert saving.kept == ["step-000003", "step-000004"]


def test_the_end_is_saved_with_its_evaluation(whole: tuple[Path, RLModule, list[Any]]) -> None:
    folder = whole[0] / "checkpoints"
    assert [one["rl_step"] for one in load(folder / "last.ckpt")["audiorl"]["evaluations"]] == [
        0,
        2,
        4,
    ]
    assert [
        one["rl_step"] for one in load(folder / "step-000002.ckpt")["audiorl"]["evaluations"]
    ] == [0, 2]


def test_a_resumed_run_is_the_run(
    whole: tuple[Path, RLModule, list[Any]], root: str, tmp_path: Path
) -> None:
    folder, expected, (report, watch, _) = whole
    new_report, new_watch, saving = (
        RunReport(enabled=False),
        HackingWatch(window=1),
        RLCheckpoint(every_n_steps=2, keep=9),
    )
    start = folder / "checkpoints" / "step-000002.ckpt"
    resumed = runs.fit(
        tmp_path,
        root,
        new_report,
        new_watch,
        saving,
        module=runs.grpo(),
        val_check_interval=2,
        ckpt_path=str(start),
    )
    assert resumed.rl_step == 4
    assert new_report.history.steps == report.history.steps == [1, 2, 3, 4]
    timeless = [name for name in report.history.columns if not name.startswith("seconds/")]
    assert {"reward/mean", "loss", "kl", "grad_norm"} <= set(timeless)
    for name in timeless:
        # NaN where a metric is not of every step.
        columns = [torch.tensor(one.history.columns[name]) for one in (new_report, report)]
        assert_close(columns[0].nan_to_num(), columns[1].nan_to_num(), "exact")
        assert torch.equal(columns[0].isnan(), columns[1].isnan())
    for name, weight in expected.policy.trainable().items():
        assert_close(resumed.policy.trainable()[name], weight, "exact")
    assert [one["rl_step"] for one in resumed.evaluations] == [0, 2, 4]
    metrics = [module.evaluations[-1]["results"]["digits"]["wer"] for module in (resumed, expected)]
    assert metrics[0] == metrics[1]
    assert new_watch.rewards[1:] == watch.rewards[1:]
    assert len(new_watch.rewards) == 3
    assert new_report.history.total_s > new_report.history.evaluation_s > 0
    assert saving.kept == ["step-000002", "step-000004"]


class Killed(Exception):
    """In place of SIGKILL: nothing after it runs in the callback."""


def killing_save(trainer: Trainer, rl_step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The save after ``rl_step`` leaves half a file behind and dies."""
    save = trainer.save_checkpoint

    def half(path: Path, **settings: Any) -> None:
        save(path, **settings)
        if trainer.lightning_module.rl_step == rl_step:  # type: ignore[union-attr]
            Path(path).write_bytes(Path(path).read_bytes()[:1000])
            raise Killed

    monkeypatch.setattr(trainer, "save_checkpoint", half)


@pytest.mark.parametrize("where", ["while writing", "while renaming"])
def test_killed_in_the_middle_of_a_save(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    trainer = runs.trainer(tmp_path, [RLCheckpoint(every_n_steps=1, keep=1)], limit_val_batches=0)
    if where == "while writing":
        killing_save(trainer, 2, monkeypatch)
    else:
        replace = os.replace

        def dying(source: Path, target: Path) -> None:
            if Path(target).name == "last.ckpt" and trainer.lightning_module.rl_step == 2:  # type: ignore[union-attr]
                raise Killed
            replace(source, target)

        monkeypatch.setattr("lightning_audiorl.callbacks.checkpoint.os.replace", dying)
    with pytest.raises(Killed):
        trainer.fit(runs.grpo(), runs.data(root))
    monkeypatch.undo()
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert trained(load(last)) == 1
    saving = RLCheckpoint(every_n_steps=1, keep=1)
    assert runs.fit(tmp_path, root, saving, ckpt_path=str(last), limit_val_batches=0).rl_step == 4
    assert names(tmp_path)[-2:] == ["last.ckpt", "step-000004.ckpt"]
    assert trained(load(last)) == 4


class DyingEvaluation(Callback):
    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        if pl_module.rl_step == 2:
            raise Killed


def test_killed_in_the_last_evaluation(root: str, tmp_path: Path) -> None:
    """The end is not saved without its evaluation: the run that goes on would have none."""
    with pytest.raises(Killed):
        runs.fit(
            tmp_path,
            root,
            RLCheckpoint(every_n_steps=1),
            DyingEvaluation(),
            module=runs.grpo(num_steps=2),
        )
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert trained(load(last)) == 1
    resumed = runs.fit(
        tmp_path, root, RLCheckpoint(), module=runs.grpo(num_steps=2), ckpt_path=str(last)
    )
    assert [one["rl_step"] for one in resumed.evaluations] == [0, 2]


@pytest.mark.parametrize(
    ("mode", "values", "best_step"),
    [
        ("min", [0.6, 0.5, 0.3, 0.4], 2),
        ("max", [0.1, 0.5, 0.3, 0.4], 1),
        ("min", [math.nan, math.nan, math.nan, 0.4], 3),
    ],
)
def test_best_by_a_figure(
    root: str, tmp_path: Path, mode: Any, values: list[float], best_step: int
) -> None:
    saving = RLCheckpoint(every_n_steps=0, keep=0, monitor="val/digits/wer", mode=mode)
    export = Export(best=True)
    module = runs.fit(
        tmp_path,
        root,
        PutMetrics(values),
        export,
        saving,
        module=runs.grpo(num_steps=3),
        val_check_interval=1,
    )
    assert names(tmp_path) == ["best.ckpt", "last.ckpt"]
    best = load(tmp_path / "checkpoints" / "best.ckpt")
    assert (trained(best), saving.best_step) == (best_step, best_step)
    assert saving.best_value == values[best_step]
    assert best["callbacks"]["RLCheckpoint"]["best_step"] == best_step
    exported = {
        name: type(module.policy)(str(tmp_path / name)).trainable()
        for name in ("export", "export_best")
    }
    for name, weight in module.policy.trainable().items():
        assert_close(exported["export"][name], weight, "exact")
        assert_close(exported["export_best"][name], best["state_dict"][f"policy.{name}"], "exact")


def test_a_misspelt_monitor_is_found_before_the_first_step(root: str, tmp_path: Path) -> None:
    module = runs.grpo()
    with pytest.raises(ValueError, match=r"no metric 'val/digit/wer' among .*val/digits/wer"):
        runs.fit(tmp_path, root, RLCheckpoint(monitor="val/digit/wer"), module=module)
    assert module.rl_step == 0


def test_bad_settings_are_refused(root: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every_n_steps=-1"):
        RLCheckpoint(every_n_steps=-1)
    with pytest.raises(ValueError, match="needs an RLCheckpoint with a monitor"):
        runs.fit(tmp_path, root, Export(best=True), RLCheckpoint())
