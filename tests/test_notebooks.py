"""Every notebook runs from top to bottom, and holds what it has shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tools.notebooks import ROOT, code_cells, execute, problems, read, texts, tidy

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# What each prints when its last point is made.
SAID = {
    "losses": "the same by hand: True",
    "quickstart": "decoded:",
    "savings": "the loss is the same: True",
    "speech": "decoded:",
    "your_checkpoint": "decoded:",
}
# What has to be heard or seen in it, and how often at least.
SHOWN = {
    "losses": {"image/png": 4},
    "quickstart": {"text/html": 6, "image/png": 1},
    "savings": {"image/png": 2},
    "speech": {"text/html": 4, "image/png": 2},
    "your_checkpoint": {"text/html": 2, "image/png": 1},
}
SLOW = {"quickstart", "savings", "speech", "your_checkpoint"}
CASES = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
    for path in NOTEBOOKS
]


def printed(notebook: Any) -> str:
    return "".join(text for cell in code_cells(notebook) for text in texts(cell))


def test_every_notebook_has_a_point() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(SAID) == set(SHOWN)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept(path: Path) -> None:
    assert problems(path) == [], f"python -m tools.notebooks --run notebooks/{path.name}"
    notebook = read(path)
    assert SAID[path.stem] in printed(notebook)
    kinds = [
        kind
        for cell in code_cells(notebook)
        for output in cell.outputs
        for kind in output.get("data", {})
    ]
    for kind, least in SHOWN[path.stem].items():
        assert kinds.count(kind) >= least, kind


@pytest.mark.parametrize("path", CASES)
def test_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUDIORL_STEPS", "2")
    monkeypatch.setenv("AUDIORL_RUNS", str(tmp_path))
    notebook = read(path)
    execute(notebook, timeout_s=200)
    assert SAID[path.stem] in printed(notebook)


def test_groups_that_explain_grpo_differ() -> None:
    for name in ("losses", "quickstart"):
        said = printed(read(ROOT / "notebooks" / f"{name}.ipynb"))
        assert len(re.findall(r"(?:advantage [+-]|\[\[? ?)(?:-?0\.[1-9]|-?1\.)", said)) >= 3, name


def test_what_outputs_may_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "small.ipynb"
    notebook = nbformat.v4.new_notebook()
    cells = [
        "import sys; print('in /somewhere/else/file.txt'); print(' 50%|== | 1/2', file=sys.stderr)",
        "import warnings; warnings.warn('old')",
        "print('a UserWarning'); object()",
        "print('3/4 of </td></tr>, at runs/quickstart/report')",
        "1 / 1",
    ]
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    nbformat.write(notebook, path)
    assert problems(path) == ["not run from top to bottom", "holds no outputs"]

    execute(notebook)
    tidy(notebook)
    nbformat.write(notebook, path)
    assert "50%" not in printed(notebook)
    found = problems(path)
    assert [problem.partition(" '")[0] for problem in found] == [
        "cell 1: shows the path",
        "cell 2: shows the path",
        "cell 2: shows the warning",
        "cell 3: shows the warning",
        "cell 3: shows the address",
    ]

    # Changed, and not run again.
    notebook.cells[-1].source = "1 / 2"
    nbformat.write(notebook, path)
    assert problems(path)[0] == "its outputs are of other code"
