"""Write docs/reliability.md: every fault that a test injects, and what is promised then.

A test says so itself, and the page is made of nothing else:

    @pytest.mark.fault("Audio", "an mp3 without a header of its length", "its decoded length is read")
    def test_an_mp3_without_a_header_is_read_whole(): ...

python -m tools.reliability [--write]
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "reliability.md"

#: The page's chapters, in its order. A fault names one of them.
AREAS = (
    "Starts and checkpoints",
    "Numbers that are none",
    "What is exported",
    "Runs that stop and go on",
    "Another engine",
    "Text",
    "Audio",
    "Manifests",
    "Speech",
    "Settings and messages",
)

_HEAD = """\
# What happens when something goes wrong

Each row is a fault that a test injects, what is promised then, and the test that shows it.
`python -m tools.reliability --write` writes this page from the tests; a test fails where it is out of date.
"""


@dataclass(frozen=True)
class Fault:
    """One row of the page."""

    area: str
    fault: str
    promise: str
    test: str
    is_slow: bool


def _marks(node: ast.AST, name: str) -> list[ast.Call]:
    """The calls of ``pytest.mark.NAME`` below a node."""
    return [
        call
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == f"pytest.mark.{name}"
    ]


def faults_of(path: Path) -> Iterator[Fault]:
    """The faults that one test file names.

    Raises:
        ValueError: a mark is not three plain strings, or names no chapter of the page.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    where = path.relative_to(ROOT)
    is_slow_file = any(
        line.startswith("pytestmark") and "pytest.mark.slow" in line
        for line in path.read_text(encoding="utf-8").splitlines()
    )

    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or not function.name.startswith("test"):
            continue

        decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
        is_slow = is_slow_file or "pytest.mark.slow" in decorators
        for call in _marks(function, "fault"):
            try:
                area, fault, promise = (ast.literal_eval(argument) for argument in call.args)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{where}:{call.lineno}: a fault is three plain strings: area, what happens, what is promised"
                ) from error
            if area not in AREAS:
                raise ValueError(
                    f"{where}:{call.lineno}: no area {area!r}; there are {', '.join(AREAS)}"
                )
            yield Fault(area, fault, promise, f"{where}::{function.name}", is_slow)


def page(faults: list[Fault]) -> str:
    """The page's text."""
    lines = [_HEAD]
    for area in AREAS:
        rows = [fault for fault in faults if fault.area == area]
        if not rows:
            continue

        lines += [f"## {area}", "", "| Fault | What is promised | Test |", "|---|---|---|"]
        for row in sorted(rows, key=lambda row: (row.test, row.fault)):
            cells = [row.fault, row.promise, f"`{row.test}`" + (" (slow)" if row.is_slow else "")]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    faults = [fault for path in sorted(TESTS.rglob("test_*.py")) for fault in faults_of(path)]
    text = page(faults)
    if "--write" in arguments:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        print(
            "docs/reliability.md is not what the tests say: python -m tools.reliability --write",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
