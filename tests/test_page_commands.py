"""Every `audiorl` line of every page is read by the command's own parser, whether or not a test can follow it.

Those that name a configuration of the repository are read with it: its classes, its settings, and those of the line.
Of the others, whose files are the reader's, the command and the names of the settings.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lightning_audiorl import cli
from lightning_audiorl.command_line import COMMANDS, LIGHTNING_COMMANDS, config_files, mistyped
from tests.pages import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^ *```(?:sh|bash|text)?\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
LINE = re.compile(r"(?:^|\s)(?:audiorl|-m lightning_audiorl) +([a-z]+ .*)$")


def lines() -> list[tuple[str, str]]:
    """Page and arguments of each command."""
    found = []
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                match = LINE.search(line)
                if match is not None and match[1].split()[0] in COMMANDS:
                    found.append((page.name, match[1]))
    return found


COMMAND_LINES = lines()


def test_pages_have_commands() -> None:
    assert len(COMMAND_LINES) > 50
    assert {arguments.split()[0] for _, arguments in COMMAND_LINES} == set(COMMANDS) - {"test"}


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), COMMAND_LINES, ids=lambda one: str(one)[:60])
def test_a_line_of_a_page_is_understood(
    page: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("FSDD_ROOT", "/recordings")
    cli.import_named_classes()
    command, *arguments = shlex.split(line, comments=True)
    files = list(config_files(arguments))
    are_ours = all(Path(file).exists() for file in files)

    if command in LIGHTNING_COMMANDS:
        assert mistyped(command, arguments) == ""
        if are_ours:
            cli.run([command, *arguments], cli._Parsed)
    elif command == "plan":
        if are_ours:
            own, of_run = cli.of_the_run(arguments)
            cli.command_parser(command).parse_args(own)
            if of_run:
                cli.fit_settings([f"--config={files[-1]}", *of_run])
    elif are_ours:
        cli.command_parser(command).parse_args(arguments)
