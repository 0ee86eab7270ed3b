"""A run that goes on: made longer, killed within an evaluation, under another monitor, in another folder."""

from __future__ import annotations

import errno
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer

from lightning_audiorl.callbacks import EarlyStop, Export, RLCheckpoint, RunReport
from lightning_audiorl.engine.optim import Optim
from tests.callbacks import runs
from tests.callbacks.runs import PutMetrics

WER = "val/digits/wer"


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def weights(module: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.policy.trainable().items()}


def assert_same(one: Any, other: Any) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


class Killed(Exception):
    """In place of SIGKILL."""


class DieIn(Callback):
    """Dies in a hook of the step, the first time."""

    def __init__(self, hook: str, rl_step: int) -> None:
        def die(trainer: Trainer, pl_module: Any, *_: Any) -> None:
            if pl_module.rl_step == rl_step:
                raise Killed

        setattr(self, hook, die)


class StopAt(Callback):
    """What `Timer` does, by the step."""

    def __init__(self, rl_step: int) -> None:
        self.rl_step = rl_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        trainer.should_stop = trainer.should_stop or pl_module.rl_step == self.rl_step


@pytest.mark.fault(
    "Runs that stop and go on",
    "a run without a validation set that has ended is made longer",
    "it goes on, and is the longer run bit for bit",
)
@pytest.mark.parametrize("make", [runs.grpo, runs.sft])
@pytest.mark.parametrize("ends", ["finished", "stopped"])
def test_a_run_without_evaluations_is_made_longer(
    root: str, tmp_path: Path, make: Any, ends: str
) -> None:
    first = make(num_steps=2 if ends == "finished" else 4)
    stops = [] if ends == "finished" else [StopAt(2)]
    runs.fit(tmp_path, root, RLCheckpoint(), *stops, module=first, limit_val_batches=0)
    assert first.rl_step == 2
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    longer = make(num_steps=4)
    runs.fit(tmp_path, root, RLCheckpoint(), module=longer, limit_val_batches=0, ckpt_path=last)
    assert longer.rl_step == 4
    whole = make(num_steps=4)
    runs.fit(tmp_path / "whole", root, RLCheckpoint(), module=whole, limit_val_batches=0)
    assert_same(longer, whole)


@pytest.mark.fault(
    "Runs that stop and go on",
    "a run whose schedule had reached 0 is made longer",
    "every further step takes the learning rate of the longer schedule",
)
def test_a_longer_run_takes_the_longer_schedule(root: str, tmp_path: Path) -> None:
    def module(num_steps: int) -> Any:
        return runs.grpo(num_steps, optim=Optim(lr=1e-3, schedule="linear"))

    runs.fit(tmp_path, root, RLCheckpoint(), module=module(2), limit_val_batches=0)
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    report = RunReport(enabled=False)
    settings: dict[str, Any] = {"module": module(4), "limit_val_batches": 0, "ckpt_path": last}
    runs.fit(tmp_path, root, report, RLCheckpoint(), **settings)
    assert report.history.columns["lr"] == [0.0005, 0.00025]


@pytest.mark.fault(
    "Runs that stop and go on",
    "a run that has reached num_steps is resumed",
    "it says that nothing is left to train",
)
def test_nothing_left_to_train_is_said(root: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"limit_val_batches": 0}
    runs.fit(tmp_path, root, RLCheckpoint(), module=runs.sft(1), **settings)
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    with pytest.warns(
        UserWarning, match=r"already finished: RL step 1 of 1, nothing is left to train"
    ):
        again = runs.fit(
            tmp_path, root, RLCheckpoint(), module=runs.sft(1), ckpt_path=last, **settings
        )
    assert again.rl_step == 1


@pytest.mark.fault(
    "Runs that stop and go on",
    "killed in the evaluation of a step that has been saved",
    "the evaluation is made before the next step, and early stopping decides as it would have",
)
@pytest.mark.parametrize("hook", ["on_validation_start", "on_validation_batch_end"])
def test_an_evaluation_that_was_cut_short_is_made(root: str, tmp_path: Path, hook: str) -> None:
    def callbacks() -> list[Callback]:
        stop = EarlyStop(WER, patience=2)
        saving = RLCheckpoint(every_n_steps=2, keep=9, monitor=WER)
        return [PutMetrics([0.5, 0.5, 0.6, 0.7]), stop, RunReport(enabled=False), saving]

    ours, theirs = callbacks(), callbacks()
    settings: dict[str, Any] = {"val_check_interval": 2}
    whole = runs.fit(tmp_path / "whole", root, *ours, module=runs.grpo(8), **settings)
    with pytest.raises(Killed):
        runs.fit(tmp_path, root, *callbacks(), DieIn(hook, 2), module=runs.grpo(8), **settings)
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    assert load(Path(last))["audiorl"]["rl_step"] == 2
    resumed = runs.fit(tmp_path, root, *theirs, module=runs.grpo(8), ckpt_path=last, **settings)
    for module in (whole, resumed):
        assert [one["rl_step"] for one in module.evaluations] == [0, 2, 4]
        assert module.rl_step == 4
    assert_same(whole, resumed)
    for saving in (ours[-1], theirs[-1]):
        assert isinstance(saving, RLCheckpoint)
        assert (saving.best_step, saving.best_value) == (2, 0.5)
    assert ours[2].history.steps == theirs[2].history.steps == [1, 2, 3, 4]  # type: ignore[attr-defined]


@pytest.mark.fault(
    "Runs that stop and go on",
    "resumed with another checkpoint.monitor",
    "the best begins anew under the new one, and a line says so",
)
@pytest.mark.parametrize("change", [{"monitor": "val/digits/length_ratio"}, {"mode": "max"}])
def test_another_monitor_begins_a_best_of_its_own(
    root: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Any
) -> None:
    values = PutMetrics([0.9, 0.1, 0.9, 0.9], [1.0, 1.0, 1.0, 1.0])
    settings: dict[str, Any] = {"val_check_interval": 1}
    saving = RLCheckpoint(monitor=WER)
    runs.fit(tmp_path, root, values, saving, module=runs.sft(1), **settings)
    assert (saving.best_step, saving.best_value) == (1, 0.1)
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    other = RLCheckpoint(**{"monitor": WER} | change)
    with caplog.at_level(logging.WARNING):
        runs.fit(tmp_path, root, values, other, module=runs.sft(3), ckpt_path=last, **settings)
    assert other.best_step == 2
    assert load(tmp_path / "checkpoints" / "best.ckpt")["audiorl"]["rl_step"] == 2
    assert f"(RL step 1, 0.1) is by {WER}, min, and not by" in caplog.text


@pytest.mark.fault(
    "Runs that stop and go on",
    "resumed into another folder",
    "the best checkpoint comes along",
)
@pytest.mark.fault(
    "Runs that stop and go on",
    "resumed into another folder from a checkpoint whose best is gone",
    "the best begins anew, and a line says so",
)
def test_into_another_folder(root: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = PutMetrics([0.9, 0.1, 0.8, 0.7])
    settings: dict[str, Any] = {"val_check_interval": 1}
    first = RLCheckpoint(monitor=WER)
    runs.fit(tmp_path / "a", root, values, first, module=runs.sft(1), **settings)
    folder = tmp_path / "a" / "checkpoints"
    settings["ckpt_path"] = str(folder / "last.ckpt")
    for name, best_step in (("b", 1), ("c", 3)):
        saving = RLCheckpoint(every_n_steps=1, keep=9, monitor=WER)
        callbacks = [values, Export(best=True), saving]
        with caplog.at_level(logging.WARNING):
            runs.fit(tmp_path / name, root, *callbacks, module=runs.sft(3), **settings)
        assert saving.best_step == best_step
        best = load(tmp_path / name / "checkpoints" / "best.ckpt")
        assert best["audiorl"]["rl_step"] == best_step
        exported = type(runs.sft(1).policy)(str(tmp_path / name / "export_best"))
        for key, value in exported.trainable().items():
            assert torch.equal(value, best["state_dict"][f"policy.{key}"])
        assert ("the best begins anew" in caplog.text) == (name == "c")

        # The second time the best is gone.
        (tmp_path / "b" / "checkpoints" / "best.ckpt").unlink(missing_ok=True)
        settings["ckpt_path"] = str(tmp_path / "b" / "checkpoints" / "step-000002.ckpt")


@pytest.mark.fault(
    "Runs that stop and go on",
    "every evaluation is worse than that before the first step",
    "no best checkpoint and no best export is written, and a line says so",
)
@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_best_is_not_worse_than_the_start(
    root: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: Any
) -> None:
    figures = [0.1, 0.5, 0.4] if mode == "min" else [0.5, 0.4, 0.1]
    saving = RLCheckpoint(monitor=WER, mode=mode)
    callbacks = [PutMetrics(figures), Export(best=True), saving]
    with caplog.at_level(logging.WARNING):
        runs.fit(tmp_path, root, *callbacks, module=runs.sft(2), val_check_interval=1)
    assert saving.best_step == -1
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()
    assert (tmp_path / "export").is_dir()
    assert not (tmp_path / "export_best").exists()
    assert f"no evaluation of {WER} was as good as {figures[0]}, that before" in caplog.text


@pytest.mark.fault(
    "Runs that stop and go on",
    "SIGTERM in the middle of a step",
    "the step at hand is finished and saved, and the run goes on from it",
)
def test_a_run_that_is_told_to_end_is_saved(root: str, tmp_path: Path) -> None:
    class Terminated(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            if pl_module.rl_step == 1 and not trainer.received_sigterm:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        runs.fit(
            tmp_path, root, RLCheckpoint(), Terminated(), module=runs.sft(3), limit_val_batches=0
        )
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert load(last)["audiorl"]["rl_step"] == 2
    resumed = runs.sft(3)
    settings: dict[str, Any] = {"limit_val_batches": 0}
    runs.fit(tmp_path, root, RLCheckpoint(), module=resumed, ckpt_path=str(last), **settings)
    whole = runs.sft(3)
    runs.fit(tmp_path / "whole", root, module=whole, **settings)
    assert_same(resumed, whole)


@pytest.mark.fault(
    "Runs that stop and go on",
    "the disk is full when a checkpoint is written",
    "one error names the folder and what was written; no broken file stays, the last checkpoint is whole",
)
def test_a_full_disk_is_one_error(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = runs.trainer(
        tmp_path, [RLCheckpoint(every_n_steps=1), RunReport()], limit_val_batches=0
    )
    save = trainer.save_checkpoint

    def no_room(path: Path, **settings: Any) -> None:
        save(path, **settings)
        if trainer.lightning_module.rl_step == 2:  # type: ignore[union-attr]
            Path(path).write_bytes(Path(path).read_bytes()[:1000])
            monkeypatch.setattr(Path, "write_text", lambda *_, **__: full())
            full()

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trainer, "save_checkpoint", no_room)
    with pytest.raises(
        OSError, match=r"checkpoints: cannot write the checkpoint of RL step 2: No sp"
    ) as told:
        trainer.fit(runs.sft(3), runs.data(root))
    assert told.value.__suppress_context__
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "last.ckpt",
        "step-000001.ckpt",
    ]
    assert load(tmp_path / "checkpoints" / "last.ckpt")["audiorl"]["rl_step"] == 1
