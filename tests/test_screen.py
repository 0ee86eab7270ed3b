"""What a user reads where a setting, a file or a command is wrong: a few lines, the reason last."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_audiorl import cli
from tests.command import tiny_config, write_manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest."""
    folder = tmp_path_factory.mktemp("screen")
    write_manifest(folder)
    return folder


Edit = Callable[[dict[str, Any]], object]


def model(config: dict[str, Any]) -> dict[str, Any]:
    """The algorithm's arguments."""
    arguments: dict[str, Any] = config["model"]["init_args"]
    return arguments


def reward(config: dict[str, Any]) -> dict[str, Any]:
    """The first reward's arguments."""
    arguments: dict[str, Any] = model(config)["rewards"]["init_args"]["rewards"][0]["init_args"]
    return arguments


# What is wrong, and how the last line of the error ends.
MISTAKES: dict[str, tuple[Edit, str]] = {
    "an argument of the data": (
        lambda c: c["data"]["init_args"].update(batchsize=3),
        "AsrDataModule has no setting 'batchsize'; did you mean 'batch_size'?",
    ),
    "an argument three classes in": (
        lambda c: reward(c).update(flor=-1),
        "Accuracy has no setting 'flor'; did you mean 'floor'?",
    ),
    "a class": (
        lambda c: model(c)["rewards"]["init_args"].update(rewards=["Acuracy"]),
        "there is no class 'Acuracy'; did you mean 'Accuracy'?",
    ),
    "a module": (
        lambda c: c["model"].update(class_path="my_module.GRPO"),
        "No module named 'my_module'",
    ),
    "a type": (lambda c: model(c)["optim"].update(lr="fast"), "want float, got fast"),
    "an argument that is missing": (
        lambda c: model(c).pop("num_steps"),
        "GRPO needs a value for: num_steps",
    ),
    "a section that is missing": (
        lambda c: c.pop("data"),
        "the command needs a value for: data",
    ),
    "an argument of the trainer": (
        lambda c: c["trainer"].update(acelerator="cpu"),
        "Trainer has no setting 'acelerator'; did you mean 'accelerator'?",
    ),
    "a value": (
        lambda c: model(c).update(group_size=1),
        "group_size must be at least 2, got 1: an advantage compares samples\n(--debug shows the traceback)",
    ),
    "a start": (
        lambda c: model(c)["policy"]["init_args"].update(init_from="nowhere/at/all"),
        "init_from: no folder nowhere/at/all (a hub id has the form owner/name)\n(--debug shows the traceback)",
    ),
}


def screen_of(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int | str | None, str]:
    """Exit code and what was printed to stderr, as on the command line."""
    monkeypatch.setattr(sys, "argv", ["audiorl", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code, capsys.readouterr().err


@pytest.mark.fault(
    "Settings and messages",
    "a mistake in a YAML file: a name, a class, a type, a value, something missing",
    "at most 15 lines without a traceback; the last one has the reason and the nearest known name",
)
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_settings_is_told_in_a_few_lines(
    name: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    edit, ending = MISTAKES[name]
    config = copy.deepcopy(tiny_config(folder))
    edit(config)
    path = folder / "mistake.yaml"
    path.write_text(yaml.safe_dump(config))

    code, printed = screen_of(["fit", "--config", str(path)], monkeypatch, capsys)
    assert code in (1, 2)
    assert "Traceback" not in printed
    assert len(printed.splitlines()) <= 15
    assert printed.rstrip().endswith(ending), printed


@pytest.mark.fault(
    "Settings and messages",
    "an option that does not exist, a config that is not there, YAML that is none",
    "at most 15 lines; the reason last, with the file or the nearest option",
)
@pytest.mark.parametrize(
    ("arguments", "ending"),
    [
        (["--trainer.max_tme", "1"], "there is no setting 'trainer.max_tme'; did you mean"),
        (["--config", "nowhere.yaml"], "nowhere.yaml'"),
        (["--config", "{folder}/broken.yaml"], 'broken.yaml", line 2, column 2'),
    ],
)
def test_the_command_line_is_told_so(
    arguments: list[str],
    ending: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "broken.yaml").write_text("a: [1, 2\nb: 3\n")
    arguments = [argument.format(folder=folder) for argument in arguments]
    code, printed = screen_of(["fit", *arguments], monkeypatch, capsys)
    assert code == 2
    assert len(printed.splitlines()) <= 15
    assert ending in printed.splitlines()[-1]


@pytest.mark.fault(
    "Settings and messages", "`audiorl` alone", "every command is listed, exit code 2"
)
def test_every_command_is_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = screen_of([], monkeypatch, capsys)
    assert code == 2
    listed = {line.split()[0] for line in printed.splitlines() if line.startswith("  ")}
    assert listed == {
        "fit",
        "validate",
        "test",
        "predict",
        "plan",
        "export",
        "calibrate",
        "assemble",
        "manifest",
        "report",
    }


@pytest.mark.fault(
    "Settings and messages",
    "a command that does not exist",
    "the nearest one is named, exit code 2",
)
def test_the_nearest_command_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = screen_of(["exprot"], monkeypatch, capsys)
    assert code == 2
    assert printed.endswith("error: there is no command 'exprot'; did you mean 'export'?\n")


def test_debug_shows_the_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(folder, group_size=1)
    (folder / "debug.yaml").write_text(yaml.safe_dump(config))
    arguments = ["audiorl", "fit", "--config", str(folder / "debug.yaml"), "--debug"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setenv("AUDIORL_DEBUG", "0")
    with pytest.raises(ValueError, match="group_size must be at least 2"):
        cli.main()


@pytest.mark.fault(
    "Settings and messages",
    "a bad file that is found in a data worker",
    "its reason is told as in the main process",
)
def test_an_error_of_a_data_worker_is_told_without_its_traceback(tmp_path: Path) -> None:
    from lightning_audiorl import screen

    package = Path(cli.__file__).parent
    text = (
        "Caught AudioError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "/x/torch/utils/data/_utils/worker.py", line 1, in _worker_loop\n    data = fetch(index)\n'
        f'  File "{package}/data/audio/reading.py", line 9, in read\n    raise AudioError(\n'
        "lightning_audiorl.data.audio.reading.AudioError: x.wav: it holds no samples; remove the row\n"
    )

    def caught(message: str) -> ValueError:
        try:
            raise ValueError(message)
        except ValueError as error:
            return error

    assert screen.is_on_purpose(caught(text))
    assert screen.told(caught(text)) == "error: x.wav: it holds no samples; remove the row"
    assert not screen.is_on_purpose(caught(text.replace("raise AudioError(", "x = y[0]")))


def test_a_fault_of_the_code_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    from lightning_audiorl import screen

    try:
        [][0]
    except IndexError as error:
        with pytest.raises(SystemExit) as stopped:
            screen.stop(error)
    assert stopped.value.code == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_version_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["audiorl", "--version"])
    cli.main()
    assert capsys.readouterr().out.startswith("audiorl ")


@pytest.mark.fault(
    "Runs that stop and go on",
    "`--ckpt_path last` where last.ckpt is gone, and other checkpoints are there",
    "it is refused with the newest of them, and no run begins anew",
)
def test_a_last_checkpoint_that_is_gone_is_no_new_run(folder: Path, tmp_path: Path) -> None:
    from tests.command import run

    config = tiny_config(folder, num_steps=1)
    config["trainer"]["default_root_dir"] = str(tmp_path / "run")
    config["data"]["init_args"].pop("val")
    run(tmp_path, config)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(FileNotFoundError, match=r"step-000001\.ckpt is there, give that"):
        run(tmp_path, config, "--ckpt_path", "last")


@pytest.mark.fault(
    "Runs that stop and go on",
    "`audiorl validate`, of another model, in the folder of a run",
    "its metrics are no points of the run's curves: they stand in a folder of their own",
)
def test_an_evaluation_is_no_point_of_a_runs_curves(folder: Path, tmp_path: Path) -> None:
    from tests.command import run

    config = tiny_config(folder, num_steps=1)
    config["trainer"]["default_root_dir"] = str(tmp_path / "run")
    config["trainer"].pop("logger")
    run(tmp_path, config)
    before = {path.name: path.stat().st_size for path in (tmp_path / "run").glob("events.*")}
    run(tmp_path, config, command="validate")
    after = {path.name: path.stat().st_size for path in (tmp_path / "run").glob("events.*")}
    assert before
    assert after == before
    assert list((tmp_path / "run" / "validate").glob("events.*"))
