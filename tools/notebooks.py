"""Run the notebooks and keep what they show in them; say what is wrong with what they hold.

    python -m tools.notebooks --run notebooks/*.ipynb
    python -m tools.notebooks notebooks/*.ipynb

What differs from one run to the next without a reason is left out: times of the cells, bars of progress, the version of
Python. A notebook remembers the code that its outputs are of, so that nobody changes one without the other.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
MAX_BYTES = 1_500_000

# Sound and pictures are base64, in which everything can be found.
_EMBEDDED = re.compile(r"base64,[A-Za-z0-9+/=]+")
_PATH = re.compile(r"(?<![\w.:/<~-])/(?:[\w.-]+/)+[\w.-]*")
_WARNING = re.compile(r"\w*Warning\b|\bWARNING\b")
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
# tqdm's, as models are loaded, and what another library thinks of its own settings.
_NOISE = re.compile(r"(?:[^\n]*\d+%\||\[transformers\] )[^\n]*\n?")


def read(path: Path) -> Any:
    """A notebook."""
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    """Its cells that are run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def code_hash(notebook: Any) -> str:
    """Of all that is run."""
    source = "\0".join(cell.source for cell in code_cells(notebook))
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def execute(notebook: Any, timeout_s: int = 1800) -> None:
    """Run it in the repository's root, in place.

    Args:
        notebook: of `read`.
        timeout_s: of a cell.

    Raises:
        CellExecutionError: where a cell does.
    """
    client = NotebookClient(
        notebook,
        timeout=timeout_s,
        record_timing=False,
        resources={"metadata": {"path": str(ROOT)}},
    )
    client.execute()


def tidy(notebook: Any) -> None:
    """Leave out what is of this machine and moment, and note which code the outputs are of."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "executed_code": code_hash(notebook),
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = list(_kept(cell.outputs))


def _kept(outputs: list[Any]) -> Iterator[Any]:
    """Without bars and the like; what is printed bit by bit is one text, where no sound or picture stands between."""
    before = None
    for output in outputs:
        if "metadata" in output:
            output.metadata = {}
        if output.get("name") == "stderr":
            output.text = _NOISE.sub("", output.text)
            if not output.text.strip():
                continue

        is_more = before is not None and "name" in output and output.name == before.get("name")
        if before is not None and is_more:
            before.text += output.text
            continue
        before = output
        yield output


def texts(cell: Any) -> Iterator[str]:
    """All that its outputs say, but for sound and pictures."""
    for output in cell.outputs:
        shown = [output.get("text", ""), *output.get("traceback", [])]
        for kind, data in output.get("data", {}).items():
            if kind.startswith("text/"):
                shown.append(data)
        for text in shown:
            yield _EMBEDDED.sub("base64,", text)


def problems(path: Path) -> list[str]:
    """What is wrong with the outputs that a notebook holds, a line each."""
    notebook = read(path)
    cells = code_cells(notebook)
    wrong = []
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        wrong.append("not run from top to bottom")
    elif notebook.metadata.get("executed_code") != code_hash(notebook):
        wrong.append("its outputs are of other code")
    if not any(cell.outputs for cell in cells):
        wrong.append("holds no outputs")
    if path.stat().st_size > MAX_BYTES:
        wrong.append(f"{path.stat().st_size / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:.1f}")

    for cell in cells:
        wrong += [f"cell {cell.execution_count}: {one}" for one in _cell_problems(cell)]
    return wrong


def _cell_problems(cell: Any) -> Iterator[str]:
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"ends with {output.ename}"

    for text in texts(cell):
        for what, pattern in (("path", _PATH), ("warning", _WARNING), ("address", _ADDRESS)):
            found = pattern.search(text)
            if found:
                yield f"shows the {what} {found[0]!r}"


def main() -> None:
    """Run notebooks, or look at them; exit code 1 where something is wrong with their outputs."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", action="store_true", help="run them, and keep their outputs")
    parser.add_argument("files", nargs="+", type=Path, help="notebooks")
    given = parser.parse_args()

    wrong = 0
    for path in given.files:
        if given.run:
            notebook = read(path)
            execute(notebook)
            tidy(notebook)
            nbformat.write(notebook, path)
        for problem in problems(path):
            print(f"{path}: {problem}")
            wrong += 1
    sys.exit(min(wrong, 1))


if __name__ == "__main__":
    main()
