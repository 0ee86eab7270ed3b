"""What the command line answers before torch is imported."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_audiorl import cli, command_line
from lightning_audiorl.commands import COMMANDS
from lightning_audiorl.screen import LightningCommandParser, options_of

#: Imports that take seconds.
HEAVY = ("torch", "lightning", "transformers", "jsonargparse")


def test_commands_are_those_that_there_are_in_their_own_words() -> None:
    said = {
        name: (inspect.getdoc(command) or "").partition("\n")[0]
        for name, command in COMMANDS.items()
    }
    assert said | command_line.LIGHTNING_COMMANDS == command_line.COMMANDS


def test_sections_are_those_of_the_parsers(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, set[str]] = {}

    def take_down(self: cli.AudioRLCLI, parser: LightningCommandParser, args: object) -> None:
        for action in parser._actions:
            if isinstance(action.choices, dict):
                for name, of_command in action.choices.items():
                    options = options_of(of_command)
                    found[name] = {
                        option.partition(".")[0] for option in options if len(option) > 1
                    }
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.AudioRLCLI, "parse_arguments", take_down)
    with pytest.raises(KeyboardInterrupt):
        cli.run(["fit"])

    sections = {*command_line.SECTIONS, "help"}
    assert found == {
        "fit": sections | {*command_line.FIT_SECTIONS},
        "validate": sections,
        "test": sections,
    }


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process in which nothing heavy can be imported."""
    block = "\n".join(
        [
            "import sys",
            f"sys.modules.update(dict.fromkeys({HEAVY!r}))",
            f"sys.argv = ['audiorl', *{list(arguments)!r}]",
            "from lightning_audiorl.__main__ import main",
            "main()",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_help_and_version_need_no_torch() -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(name in out for name in command_line.COMMANDS)

    code, out, _ = run("--version")
    assert (code, out.split()[0]) == (0, "audiorl")


def test_no_command_is_an_error() -> None:
    code, out, err = run()
    assert (code, out) == (2, "")
    assert err.startswith("usage: audiorl COMMAND")


@pytest.mark.fault(
    "Settings and messages",
    "A command, section or option that does not exist",
    "refused with the nearest name, within a tenth of a second, before torch is imported",
)
@pytest.mark.parametrize(
    ("arguments", "settings", "reason"),
    [
        (["fti"], "", "there is no command 'fti'; did you mean 'fit'?"),
        (["fit", "--modle.class_path", "GRPO"], "", "no setting 'modle'; did you mean 'model'?"),
        (["validate", "--overwrite"], "", "there is no setting 'overwrite'"),
        (["fit", "--config", "FILE"], "modle: 1", "'modle' (in FILE); did you mean 'model'?"),
    ],
    ids=["command", "option", "of another command", "file"],
)
def test_a_mistyped_name_needs_no_torch(
    arguments: list[str], settings: str, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(settings)
    code, _, err = run(*(str(file) if one == "FILE" else one for one in arguments))
    assert code == 2
    assert reason.replace("FILE", str(file)) in err
    assert len(err.splitlines()) <= 15


def test_what_may_be_right_is_left_to_the_parser(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    for text in ("", "model: {", "- 1", "fit: {model: 1}", "seed_everything: 1\ntrainer: {}"):
        file.write_text(text)
        assert command_line.mistyped("fit", ["--config", str(file)]) == ""
    assert command_line.mistyped("fit", ["--config=nowhere.yaml"]) == ""
    assert command_line.mistyped("fit", ["--trainer.callbacks+=x", "--help", "--overwrite"]) == ""
