"""The package as a user installs it: metadata, console script, declared dependencies, Makefile."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lightning_audiorl
from tools import constraints

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "lightning_audiorl").rglob("*.py")
    if path.name != "__main__.py"
)


def distribution(requirement: str) -> str:
    """``torch==2.11.*`` -> ``torch``, as package indexes spell it."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=kept | environment, capture_output=True, text=True, timeout=60
    )


def test_versions_agree() -> None:
    assert lightning_audiorl.__version__ == PROJECT["version"]
    assert importlib.metadata.version("lightning-audiorl") == PROJECT["version"]


def test_constraints_lie_in_the_ranges() -> None:
    """And each package that is asked for by name has a version there."""
    versions = constraints.kept((ROOT / "constraints.txt").read_text())
    asked = constraints.declared()
    assert {"torch", "torchaudio", "transformers", "pytest", "ruff"} <= {r.name for r in asked}
    outside = [r for r in asked if versions.get(canonicalize_name(r.name), "0") not in r.specifier]
    assert outside == [], "constraints.txt has another version, or none"


def test_make_installs_what_was_tested() -> None:
    recipe = re.search(r"^\$\(INSTALLED\): (.*?)\n\n", (ROOT / "Makefile").read_text(), re.M | re.S)
    assert recipe is not None
    assert "pyproject.toml constraints.txt |" in recipe[1]
    assert "--constraint constraints.txt" in recipe[1]
    assert f".[{','.join(constraints.EXTRAS)}]" in recipe[1]


def test_constraints_go_through_what_others_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extras of extras, markers, what is not installed, and a build's local part."""
    wants = {
        "one": ["two[fast]>=1", "old; python_version < '3'"],
        "two": ["three; extra == 'fast'", "four; extra == 'slow'"],
        "three": ["one", "absent"],
    }
    versions = {"one": "1.0", "two": "2.0+cpu", "three": "3.0", "four": "4.0", "old": "0.1"}

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(constraints, "declared", lambda: [Requirement("one")])
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", wants.get)
    assert constraints.installed() == ({"one": "1.0", "two": "2.0", "three": "3.0"}, ["absent"])


def test_every_module_imports() -> None:
    assert len(MODULES) > 20
    for name in MODULES:
        importlib.import_module(name)


def test_imports_are_declared() -> None:
    names = set()
    for name in MODULES:
        path = ROOT / name.replace(".", "/")
        source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(str(node.module).split(".")[0])
    outside = names - set(sys.stdlib_module_names) - {"lightning_audiorl"}
    assert {"torch", "transformers", "lightning"} <= outside
    extras = PROJECT["optional-dependencies"]
    declared = {
        distribution(r) for r in [*PROJECT["dependencies"], *extras["synth"], *extras["datasets"]]
    }
    owners = importlib.metadata.packages_distributions()
    # Imported by the file that runs in an environment of its own.
    outside -= {distribution(r) for r in PROJECT["optional-dependencies"]["vllm"]}
    missing = [
        n for n in sorted(outside) if not {distribution(o) for o in owners.get(n, [])} & declared
    ]
    assert missing == [], "imported, but not among the dependencies of pyproject.toml"


def test_command_line_shows_its_help() -> None:
    command = [sys.executable, "-m", "lightning_audiorl", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    assert "fit" in result.stdout
    assert "validate" in result.stdout


def test_console_script_is_the_same_command() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="audiorl")
    assert script.load() is importlib.import_module("lightning_audiorl.__main__").main


def test_files_a_reader_expects() -> None:
    assert (ROOT / "lightning_audiorl" / "py.typed").exists()
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_documents_link_to_files_that_exist() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [
        (document, link)
        for document in documents
        for link in re.findall(r"\]\(([^)#\s]+)", document.read_text())
        if "://" not in link
    ]
    assert len(links) > 3
    assert [(d.name, link) for d, link in links if not (d.parent / link).exists()] == []


def test_make_lists_its_targets() -> None:
    targets = {line.split()[0] for line in make("help").stdout.splitlines()}
    assert targets >= {
        "quickstart",
        "test",
        "test-slow",
        "lint",
        "format",
        "bench",
        "docs",
        "notebook",
        "clean",
    }


def test_make_installs_before_it_tests(tmp_path: Path) -> None:
    lines = make("--dry-run", "test", f"VENV={tmp_path}/env").stdout
    steps = [
        f"-m venv {tmp_path}/env",
        "pip install",
        f"touch {tmp_path}/env/.installed",
        "-m pytest",
    ]
    places = [lines.find(step) for step in steps]
    assert -1 not in places
    assert places == sorted(places)


def fake_python(path: Path, exit_code: int) -> Path:
    """A `python` that answers the version check with ``exit_code`` and, asked for anything else, says its name."""
    path.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exit {exit_code}\necho "ran $(basename "$0") $*"\n'
    )
    path.chmod(0o755)
    return path


def test_make_takes_the_first_python_that_is_new_enough(tmp_path: Path) -> None:
    old, new = fake_python(tmp_path / "old", 1), fake_python(tmp_path / "new", 0)
    result = make(
        f"{tmp_path}/env/bin/pip", f"VENV={tmp_path}/env", f"PYTHON={tmp_path}/none {old} {new}"
    )
    assert result.returncode == 0
    assert f"ran new -m venv {tmp_path}/env" in result.stdout


def test_make_says_which_python_it_needs(tmp_path: Path) -> None:
    old = fake_python(tmp_path / "old", 1)
    result = make("test", f"VENV={tmp_path}/env", f"PYTHON={old}")
    assert result.returncode != 0
    assert "Python 3.11 to 3.14 with its venv module is needed" in result.stderr
    assert not (tmp_path / "env").exists()


def test_python_check_of_the_makefile_accepts_this_python() -> None:
    check = re.search(r"^IS_SUITABLE := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert check is not None
    assert subprocess.run([sys.executable, "-c", check[1]]).returncode == 0
    too_old = check[1].replace("sys.version_info[:2]", "(3, 10)")
    assert too_old != check[1]
    assert subprocess.run([sys.executable, "-c", too_old]).returncode == 1
