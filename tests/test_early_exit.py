"""A command whose judge, reward or rows end the process with exit code 0 has not done what was asked for."""

from __future__ import annotations

import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_audiorl import cli


def stops(*_: Any, **__: Any) -> None:
    sys.exit(0)


def command(folder: str = "here") -> None:
    """As a judge that exits would end it."""
    stops(folder)


@pytest.mark.fault(
    "Settings and messages",
    "sys.exit(0) in a judge or a row source during an evaluation, a prediction or another command",
    "an error that says so; the exit code is not 0",
)
def test_an_exit_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = SimpleNamespace(validate=stops, test=stops, loggers=[], is_global_zero=False)
    part: Any = SimpleNamespace(
        trainer=trainer,
        folder=None,
        subcommand="validate",
        _checkpoint=lambda name: name,
        _release_folder=lambda: None,
    )
    part._evaluate = partial(cli.AudioRLCLI._evaluate, part)
    for evaluate in (cli.AudioRLCLI.validate, cli.AudioRLCLI.test):
        with pytest.raises(RuntimeError, match=r"called sys\.exit\(0\)"):
            evaluate(part)

    monkeypatch.setitem(cli.COMMANDS, "calibrate", command)
    with pytest.raises(RuntimeError, match=r"audiorl calibrate: something .*called sys\.exit\(0\)"):
        cli.run_command("calibrate", [])
    # Asking for help is no early end.
    with pytest.raises(SystemExit) as stopped:
        cli.run_command("calibrate", ["--help"])
    assert stopped.value.code == 0
