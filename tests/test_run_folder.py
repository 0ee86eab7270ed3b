"""The folder of a run: each has one of its own, a living run keeps it, and the shell hears how it ended."""

from __future__ import annotations

import csv
import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import Namespace
from lightning import Callback, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.command import class_of, run, tiny_config, write_manifest


def config(folder: Path, num_steps: int = 1, **trainer: Any) -> dict[str, Any]:
    """A supervised run of a step."""
    settings = tiny_config(folder, "SFT", num_steps=num_steps)
    settings["data"]["init_args"].pop("val")
    settings["trainer"].pop("logger")
    settings["trainer"] |= trainer
    return settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folders")
    write_manifest(folder)
    return folder


def trained_steps(folder: Path) -> list[int]:
    """The steps of the training curve, in the order of their files."""
    steps = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0})
        events.Reload()
        if "loss" in events.Tags()["scalars"]:
            steps += [event.step for event in events.Scalars("loss")]
    return steps


def rl_step(folder: Path) -> int:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["audiorl"]["rl_step"]


class DieAt(Callback):
    """Ends the process' run in the middle of its second step."""

    def __init__(self, how: str) -> None:
        self.how = how

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.rl_step == 1 and self.how == "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
        if pl_module.rl_step == 1 and self.how == "exit":
            sys.exit(0)
        if pl_module.rl_step == 1 and self.how == "disk":
            raise OSError(errno.ENOSPC, "No space left on device", "events.out")

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        if self.how == "disk":
            raise OSError(errno.ENOSPC, "No space left on device", "something else")


@pytest.mark.fault(
    "Runs that stop and go on",
    "a second run with the same settings",
    "it writes to a numbered folder of its own, and a line says so",
)
@pytest.mark.fault(
    "Runs that stop and go on",
    "a run goes on with --ckpt_path last, or a path, where later runs have numbered folders",
    "it goes on in its own folder",
)
@pytest.mark.fault(
    "Runs that stop and go on",
    "--overwrite where a run of the user's files stand beside those of a run",
    "what the earlier run wrote is removed, and nothing else",
)
def test_each_run_has_a_folder_of_its_own(folder: Path) -> None:
    first = folder / "run"
    second = folder / "run-2"
    settings = config(folder) | {"export": {"enabled": True}, "report": {"enabled": True}}
    run(folder, settings)
    with pytest.warns(UserWarning, match=r"run holds an earlier run: this run writes to .*run-2"):
        run(folder, settings)
    for own in (first, second):
        assert trained_steps(own) == [1]
        assert rl_step(own) == 1
        assert (own / "report" / "report.json").is_file()
        assert (own / "export" / "config.json").is_file()
        saved = yaml.safe_load((own / "config.yaml").read_text())
        assert saved["trainer"]["default_root_dir"] == str(own)
        assert saved["trainer"]["logger"]["init_args"]["save_dir"] == str(own)

    longer = config(folder, num_steps=2)
    with pytest.warns(UserWarning, match=r"run-2 is of a later run"):
        run(folder, longer, "--ckpt_path", "last")
    assert (rl_step(first), rl_step(second)) == (2, 1)
    longer = config(folder, num_steps=3)
    run(folder, longer, "--ckpt_path", str(second / "checkpoints" / "last.ckpt"))
    assert (rl_step(first), rl_step(second)) == (2, 3)
    assert trained_steps(second) == [1, 2, 3]

    for name in ("notes.txt", "checkpoints/mine.ckpt", "export/notes.txt", "report/notes.md"):
        (first / name).write_text("mine")
    (first / "report" / "report_old.png").write_text("theirs")
    run(folder, config(folder), "--overwrite")
    assert trained_steps(first) == [1]
    assert rl_step(first) == 1
    assert sorted(
        str(path.relative_to(first)) for path in first.rglob("*.*") if path.is_file()
    ) == [
        ".run",
        "checkpoints/last.ckpt",
        "checkpoints/mine.ckpt",
        "checkpoints/step-000001.ckpt",
        "config.yaml",
        *sorted(path.name for path in first.glob("events*")),
        "export/notes.txt",
        "hparams.yaml",
        "notes.txt",
        "report/notes.md",
    ]
    assert not yaml.safe_load((first / "config.yaml").read_text())["overwrite"]
    assert sorted(path.name for path in folder.glob("run*")) == ["run", "run-2"]


@pytest.mark.fault(
    "Runs that stop and go on",
    "two runs at the same time with one folder",
    "the second writes to a folder of its own, or is refused by the first one's process where it would go on in it",
)
@pytest.mark.fault(
    "Runs that stop and go on",
    "a run is killed with workers that outlive it",
    "its lock goes with it",
)
def test_a_living_run_keeps_its_folder(tmp_path: Path) -> None:
    from lightning_audiorl.run_folder import FolderInUse, take_folder

    def settings(**more: Any) -> Namespace:
        trainer = Namespace(default_root_dir=str(tmp_path / "run"))
        return Namespace(trainer=trainer, **more)

    reading, writing = os.pipe()
    ready, is_ready = os.pipe()
    holder = os.fork()
    if not holder:
        take_folder(settings())
        # A worker, as a DataLoader forks it, that goes on living.
        if not os.fork():
            os.close(is_ready)
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        os.write(is_ready, b"1")
        signal.pause()

    os.read(ready, 1)
    try:
        for more in ({"ckpt_path": "last"}, {"overwrite": True}):
            with pytest.raises(
                FolderInUse, match=rf"run: in use by .*\(process {holder} on .*give"
            ):
                take_folder(settings(**more))
        with pytest.warns(
            UserWarning, match=rf"in use by process {holder} on .* writes to .*run-2"
        ):
            other = take_folder(settings())
        assert other is not None
        assert other.path == tmp_path / "run-2"
        other.release()
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    again = take_folder(settings(ckpt_path="last"))
    assert again is not None
    assert again.path == tmp_path / "run"
    again.release()
    os.write(writing, b"1")


def test_all_that_a_run_writes_moves_with_its_folder(tmp_path: Path) -> None:
    from lightning_audiorl.run_folder import move

    old = tmp_path / "runs" / "x"
    tensorboard = "lightning.pytorch.loggers.TensorBoardLogger"
    loggers = [
        Namespace(class_path=tensorboard, init_args=Namespace(save_dir=str(old), version="")),
        Namespace(class_path=tensorboard, init_args=Namespace(save_dir="tb", version="")),
        Namespace(class_path="CSVLogger", init_args=Namespace(save_dir="csv", version=None)),
        Namespace(class_path="my.MLFlowLogger", init_args=Namespace(save_dir="mlruns")),
    ]
    callbacks = [{"class_path": "Own", "init_args": {"dirpath": str(old / "own")}}]
    settings = Namespace(
        trainer=Namespace(default_root_dir=str(old), logger=loggers, callbacks=callbacks),
        checkpoint=Namespace(dirpath="ckpts", monitor="val/x/wer"),
        export=Namespace(dirpath=None),
        model=Namespace(init_args=Namespace(folder=str(old / "export"), init_from=str(old / "a"))),
    )
    move(settings, old, tmp_path / "runs" / "x-2")
    new = tmp_path / "runs" / "x-2"
    places = [logger.init_args.save_dir for logger in loggers]
    assert places == [str(new), "tb-2", "csv", "mlruns"]
    assert callbacks[0]["init_args"] == {"dirpath": str(new / "own")}
    assert (settings.checkpoint.dirpath, settings.export.dirpath) == ("ckpts-2", None)
    assert settings.model.init_args.folder == str(new / "export")
    assert settings.model.init_args.init_from == str(old / "a")


@pytest.mark.parametrize("given", [{"fast_dev_run": True}, {"default_root_dir": "s3://bucket/x"}])
def test_some_runs_have_no_folder_to_hold(tmp_path: Path, given: dict[str, Any]) -> None:
    from lightning_audiorl.run_folder import take_folder

    trainer = Namespace(**{"default_root_dir": str(tmp_path / "run")} | given)
    assert take_folder(Namespace(trainer=trainer)) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(
    "Runs that stop and go on",
    "SIGTERM, or sys.exit(0) within a reward",
    "the exit code is not 0",
)
@pytest.mark.fault(
    "Runs that stop and go on",
    "the disk is full, for the loggers and for all that is written of the failure",
    "one error, with the file that could not be written first",
)
def test_the_shell_hears_how_a_run_ended(folder: Path, tmp_path: Path) -> None:
    def dying(how: str) -> dict[str, Any]:
        killer = class_of("tests.test_run_folder.DieAt", how=how)
        settings = config(folder, num_steps=3, callbacks=[killer])
        settings["trainer"]["default_root_dir"] = str(tmp_path / how)
        return settings

    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, dying("SIGTERM"))
    assert stopped.value.code == 143
    assert rl_step(tmp_path / "SIGTERM") == 2

    with pytest.raises(RuntimeError, match=r"called sys.exit\(0\) before its end"):
        run(tmp_path, dying("exit"))

    with pytest.raises(OSError, match=r"^events.out: cannot be written: No space left") as told:
        run(tmp_path, dying("disk"))
    assert told.value.__suppress_context__


@pytest.mark.fault(
    "Runs that stop and go on",
    "a run with a CSVLogger goes on",
    "the curve until then is kept in a file that a line names",
)
def test_a_csv_curve_is_kept(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "csv"
    settings = config(folder, num_steps=2, default_root_dir=str(root))
    logger = class_of(
        "lightning.pytorch.loggers.CSVLogger", save_dir=str(root), name="", version=""
    )
    settings["trainer"]["logger"] = logger
    run(tmp_path, settings)
    longer = config(folder, num_steps=3, default_root_dir=str(root), logger=logger)
    with pytest.warns(UserWarning, match=r"CSVLogger begins .*metrics.csv anew; .*metrics-1.csv"):
        run(tmp_path, longer, "--ckpt_path", "last")
    for name, steps in (("metrics-1.csv", {"1", "2"}), ("metrics.csv", {"3"})):
        with (root / name).open() as file:
            assert {row["step"] for row in csv.DictReader(file)} == steps
