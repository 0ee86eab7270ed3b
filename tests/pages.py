"""The blocks of a page of documentation, and what its commands print when they are followed in this process."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
from pathlib import Path
from textwrap import dedent

import pytest

from lightning_audiorl import cli

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of every fenced block, in the page's order; of those in lists without their indent."""
    return [(language, dedent(text)) for _, language, text in _BLOCK.findall(page)]


def follow(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What one line of a page prints: `audiorl`, `python FILE`, `cp FILE NEW` and `cat FILE`.

    What is copied is looked for here, then in the repository.
    """
    capsys.readouterr()
    program, *arguments = shlex.split(command, comments=True)
    if program == "audiorl":
        cli.main(arguments)
    elif program == "python":
        runpy.run_path(*arguments)
    elif program == "cp":
        source, target = arguments
        here = Path(source)
        shutil.copy(here if here.exists() else ROOT / source, target)
    else:
        assert program == "cat", f"tests/pages.py does not know how to follow {command!r}"
        return Path(*arguments).read_text()
    return capsys.readouterr().out
