"""The house rules of docs/architecture.md, held by the syntax trees: import arrows, lengths, unwanted text."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import measures
from tools.measures import Place, SourceFile
from tools.rooms import PAGE, ROOMS, page_with_table
from tools.style import MAX_FILE_LINES, MAX_FUNCTION_LINES

PACKAGE = "lightning_audiorl"
ROOT = Path(__file__).parents[1]

# "path" or "path::function" -> why it may be longer. Without a reason nothing enters here.
LONGER: dict[str, str] = {}

# Folders and modules of the package whose code is still packed; what is opened leaves the list, and nothing enters it.
PACKED: tuple[str, ...] = ()


EVERY_ROOM = tuple(name for name in ROOMS if "." not in name)


def module_name(path: Path) -> str:
    """``lightning_audiorl/ops/kl.py`` -> ``lightning_audiorl.ops.kl``; a package's ``__init__`` is the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, package: str) -> Iterator[str]:
    """Dotted names that ``source``, inside ``package``, imports anywhere, ``a.b.c`` for ``from a.b import c``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            yield from (
                a.value
                for a in node.args[:1]
                if isinstance(a, ast.Constant) and isinstance(a.value, str)
            )


def room_of(module: str) -> str | None:
    """The room that ``module`` stands in, a folder's folder before the folder; None without one.

    ``lightning_audiorl.data.mix.selection.base`` stands in ``data.mix.selection``.
    """
    name = module.removeprefix(PACKAGE).removeprefix(".")
    fitting = [room for room in ROOMS if name == room or (room and name.startswith(f"{room}."))]
    return max(fitting, key=len, default=None)


def forbidden_imports(source: str, module: str, is_package: bool = False) -> list[str]:
    """The imports in ``source`` that its room does not allow; one line each."""
    room_name = room_of(module)
    if room_name is None:
        return [f"{module} stands in no room: add it to tools/rooms.py"]
    room = ROOMS[room_name]
    inside = [f"{PACKAGE}.{name}" for name in (room_name, *room.rooms) if name]
    package = module if is_package else module.rpartition(".")[0]
    bad = []
    for name in imports(source, package):
        top = name.split(".")[0]
        if top == PACKAGE:
            allowed = any(name == prefix or name.startswith(prefix + ".") for prefix in inside)
        else:
            allowed = top in sys.stdlib_module_names or top in room.packages
        if not allowed:
            bad.append(f"{module} may not import {name}")
    return bad


def too_long(source: str, path: str) -> list[str]:
    """The file and functions in ``source`` over the limits; docstrings, blank lines and comments are no code."""
    file = SourceFile(source, path)
    bad = []
    if len(file.lines) > MAX_FILE_LINES and path not in LONGER:
        bad.append(f"{path}: {len(file.lines)} lines, at most {MAX_FILE_LINES}")
    for place in measures.function_places(file):
        if place.size > MAX_FUNCTION_LINES and f"{path}::{place.name}" not in LONGER:
            bad.append(
                f"{path}::{place.name}: {place.size} lines of code, at most {MAX_FUNCTION_LINES}"
            )
    return bad


def packed(file: SourceFile) -> list[Place]:
    """Functions without a paragraph, assignments of many names, comprehensions of many levels."""
    wide = [place for place in measures.tuple_assignments(file) if place.size > 2]
    deep = [place for place in measures.nested_comprehensions(file) if place.size > 2]
    return [*measures.solid_functions(file), *wide, *deep]


# A directory of somebody's machine, or a loose end. Written so that this file does not match itself.
UNWANTED = re.compile(
    r"(?<![\w.~}])/(?:home|root|work|Users|mnt|opt)/\w[^\s\"'`]*|\b(?:TO[D]O|FIX[M]E)\b"
)


def unwanted_text(text: str, path: str) -> list[str]:
    """Machine paths and loose ends in ``text``, with line numbers."""
    lines = enumerate(text.splitlines(), start=1)
    return [
        f"{path}:{number}: {match[0]}"
        for number, line in lines
        for match in UNWANTED.finditer(line)
    ]


def package_files() -> list[Path]:
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def text_files() -> list[Path]:
    folders = [
        PACKAGE,
        "tests",
        "configs",
        "docs",
        "benchmarks",
        "experiments",
        "notebooks",
        "tools",
    ]
    suffixes = {".py", ".md", ".yaml", ".toml", ".ipynb", ".json", ".jsonl", ".sh", ".csv"}
    found = [
        path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in suffixes
    ]
    return sorted(
        [*found, *ROOT.glob("*.md"), *ROOT.glob("*.toml"), ROOT / "Makefile", ROOT / ".ci" / "run"]
    )


def test_files_are_found() -> None:
    folders = {
        module_name(path.parent / "__init__.py").removeprefix(f"{PACKAGE}.")
        for path in package_files()
    }
    modules = {"checks", "finite", "fields", "types", "languages", "outline", "", "moved"}
    command_line = {"command_line", "setting_names", "screen", "cli", "training", "__main__"}
    folders_of_runs = {"locks", "run_folder", "evaluation_folder", "run_end"}
    files = modules | command_line | folders_of_runs | {"speech_activity"}
    assert folders - {PACKAGE} == set(ROOMS) - files
    assert len(package_files()) > 20
    assert {ROOT / "README.md", ROOT / "Makefile", Path(__file__)} <= set(text_files())


def test_import_arrows() -> None:
    bad = [
        line
        for path in package_files()
        for line in forbidden_imports(
            path.read_text(), module_name(path), path.name == "__init__.py"
        )
    ]
    assert bad == []


@pytest.mark.parametrize(
    ("module", "source", "num_bad"),
    [
        (
            "ops.kl",
            "import torch.nn.functional as F\nfrom lightning_audiorl.types import Rollout\nimport math",
            0,
        ),
        ("ops.kl", "import numpy", 1),
        ("ops.kl", "def f():\n    from lightning_audiorl.models import policy", 1),
        ("text.errors", "import jiwer\nimport torch", 1),
        ("text.errors", "from lightning_audiorl.types import Utterance", 1),
        ("rewards.accuracy", "from ..text import errors\nfrom ..algorithms.grpo import GRPO", 1),
        ("rewards.accuracy", "from . import base", 0),
        ("data.audio.reading", "import importlib\nimportlib.import_module('transformers')", 1),
        ("strategies.phases", "from lightning_audiorl.algorithms import grpo", 1),
        ("algorithms.grpo", "from lightning_audiorl.models.policy import Policy", 0),
        ("algorithms.grpo", "from lightning_audiorl.models import Policy, policy", 1),
        ("algorithms.grpo", "from lightning_audiorl.models.policy_of_a_family import Policy", 1),
        ("algorithms.grpo", "from lightning_audiorl.data.module import AudioData", 1),
        ("callbacks.report", "from lightning_audiorl.algorithms.grpo import GRPO", 1),
        ("callbacks.report", "import lightning_audiorl.cli", 1),
        ("__main__", "from lightning_audiorl.cli import main", 0),
        ("commands.plan.meter", "from lightning_audiorl.commands.plan.placement import Plan", 0),
        ("commands.plan.meter", "from lightning_audiorl.commands.predict import predict", 1),
        ("data.mix.writer", "from lightning_audiorl.data.mix.selection import Candidate", 0),
        ("data.mix.selection.base", "from lightning_audiorl.data.mix.spec import RLSubset", 1),
        ("data.manifest.schema", "from lightning_audiorl.data.audio.nonspeech import NonSpeech", 1),
        ("data.manifest.schema", "from lightning_audiorl.data import NonSpeech", 1),
        ("attic.old", "", 1),
    ],
)
def test_import_arrows_on_examples(module: str, source: str, num_bad: int) -> None:
    assert len(forbidden_imports(source, f"{PACKAGE}.{module}")) == num_bad


def test_the_page_shows_the_rooms_as_they_are() -> None:
    page = PAGE.read_text()
    assert page_with_table(page) == page, "run python -m tools.rooms --write"


def test_nobody_imports_the_cli() -> None:
    assert [name for name, room in ROOMS.items() if "cli" in room.rooms] == ["__main__"]
    assert forbidden_imports("from .cli import main", PACKAGE, is_package=True) == [
        "lightning_audiorl may not import lightning_audiorl.cli.main"
    ]


def test_files_and_functions_are_short() -> None:
    bad = [
        line
        for path in package_files()
        for line in too_long(path.read_text(), str(path.relative_to(ROOT)))
    ]
    assert bad == []


def test_longer_ones_exist_and_have_a_reason() -> None:
    for place, reason in LONGER.items():
        path, _, function = place.partition("::")
        assert len(reason.split()) > 3, f"{place}: say why"
        assert f"def {function}" in (ROOT / path).read_text(), (
            f"{place}: gone, take it off the list"
        )


def test_lengths_on_examples() -> None:
    body = "    x = 1\n"
    assert too_long("def f():\n" + body * (MAX_FUNCTION_LINES - 1), "a.py") == []
    assert too_long("def f():\n" + body * MAX_FUNCTION_LINES, "a.py") == [
        "a.py::f: 81 lines of code, at most 80"
    ]
    open_body = (
        '    """What.\n\n    More.\n    """\n' + "    # Why.\n\n" + body * (MAX_FUNCTION_LINES - 1)
    )
    assert too_long("def f():\n" + open_body, "a.py") == []
    assert too_long("x = 1\n" * (MAX_FILE_LINES + 1), "a.py") == ["a.py: 501 lines, at most 500"]


def test_code_is_open() -> None:
    bad = []
    for path in package_files():
        folder = module_name(path).removeprefix(f"{PACKAGE}.").split(".")[0]
        if folder not in PACKED:
            bad += map(str, packed(SourceFile(path.read_text(), str(path.relative_to(ROOT)))))
    assert bad == []


def test_packed_code_on_examples() -> None:
    body = "    x = 1\n"
    assert packed(SourceFile("def f():\n" + body * 19)) == []
    assert packed(SourceFile("def f():\n" + body * 10 + "\n" + body * 10)) == []
    assert packed(SourceFile("a, b = c, d\n[x for y in z for x in y]\n")) == []
    bad = "def f():\n" + body * 20 + "a, b, c = d, e, f\n[x for y in z for v in y for x in v]\n"
    assert [place.line for place in packed(SourceFile(bad))] == [1, 22, 23]


def test_no_machine_paths_and_no_loose_ends() -> None:
    assert [
        line
        for path in text_files()
        for line in unwanted_text(path.read_text(), str(path.relative_to(ROOT)))
    ] == []


@pytest.mark.parametrize(
    ("text", "num_bad"),
    [
        ("open('/" + "home/me/data.jsonl')", 1),
        ("see /" + "work/runs/1, # TO" + "DO: later", 2),
        ("https://example.org/home/page and data/home/x and /path/to/manifest.jsonl", 0),
    ],
)
def test_unwanted_text_on_examples(text: str, num_bad: int) -> None:
    assert len(unwanted_text(text, "a.py")) == num_bad
