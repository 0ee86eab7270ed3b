"""How openly the package is written: its numbers beside those of codebases that engineers hold up.

    python tools/style.py                          the whole package
    python tools/style.py --folder ops text        some folders or modules of it
    python tools/style.py --by-folder              one column per folder
    python tools/style.py --worst 5                with the worst places of each measure, file:line
    python tools/style.py --check                  exit code 1 beyond a limit

The numbers follow from open code: one thing per line, a paragraph and its reason where a function has steps. Code
written for the numbers is worse than before.

What is measured (the words *code line*, *open line* and *body* are those of `tools/measures.py`):

- solid functions: of the functions with 20 or more code lines in the body, the share whose body has no open line.
- stretches over 15: more than 15 code lines of a function's body without an open line between them; the longest one.
- code lines: without imports; rates per 1,000 lines are over these, but for comments.
- AST nodes per line: statements, expressions, keyword arguments and ``for`` clauses, without docstrings and imports.
- tuple assignments: ``a, b = c, d``; and those of more than two names. Unpacking what a call returns is none.
- nested comprehensions: two or more ``for``, one after the other or one in another; and those of more than two levels.
- ternaries: ``a if b else c``.
- comments: lines that are a comment and nothing else, per 1,000 lines of the files; directives (``noqa``) are none.
- examples: docstrings with a doctest, per 100 public functions and classes; and the public methods of these, too.
- Any on a seam: an argument, variable or attribute named policy, strategy or codec that is annotated as ``Any``.
- "figures": how often the word stands where the field says metrics.
- depth: the most classes of ours on the way from a class, itself included, up to LightningModule.
- files over 500 lines, functions over 80 code lines (signature and body).

Standard library only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import measures  # noqa: E402
from tools.class_tree import depths  # noqa: E402
from tools.measures import Place, SourceFile  # noqa: E402

PACKAGE = "lightning_audiorl"
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80
MAX_STRETCH = 15

#: Read from the newest public snapshots of 2026-04 to 2026-08, tests left out; their own counting may differ a little.
PEERS = {
    "solid functions, %": (14, 13, 13, 4, 1, 12, 4),
    "AST nodes per line": (4.8, 3.3, 5.0, 4.3, 3.5, 4.7, 4.8),
    "tuple assignments per 1,000 lines": (1.2, 0.5, 1.9, 2.8, 0.5, 1.4, 1.4),
    "nested comprehensions per 1,000 lines": (2.0, 0.9, 0.5, 1.0, 0.1, 0.2, 1.0),
    "ternaries per 1,000 lines": (14.7, 7.2, 12.5, 16.0, 1.9, 3.3, 2.9),
    "comments per 1,000 lines": (46, 99, 63, 104, 52, 44, 142),
    # Per 100 docstrings.
    "examples per 100 public": (1.0, 19.2, 57.2, 40.9, 2.6, 0.0, 7.8),
    "lines of the longest file": (1616, 1460, 1312, 3374, 1394, 983, 720),
    "lines of the longest function": (504, 144, 275, 673, 206, 158, 78),
}
PEER_NAMES = (
    "prime-rl",
    "torchtitan rl",
    "torchmetrics",
    "trl trainer",
    "fairseq2",
    "moshi",
    "nemo speechlm2",
)

#: The same, by the same reading, of this package at commit a3a158b.
BEFORE = {
    "solid functions, %": 85,
    "AST nodes per line": 6.9,
    "tuple assignments per 1,000 lines": 16.9,
    "nested comprehensions per 1,000 lines": 7.2,
    "ternaries per 1,000 lines": 28.5,
    "comments per 1,000 lines": 5,
    "examples per 100 public": 3.6,
    "lines of the longest file": 295,
    "lines of the longest function": 57,
}


@dataclass(frozen=True)
class Row:
    """One measure: its value, the limits it must keep, and where it is worst.

    Args:
        name: as in the table.
        value: of what was measured.
        highest: the largest value that `--check` lets pass; None is no limit.
        lowest: the smallest one.
        places: where, the worst first.
    """

    name: str
    value: float
    highest: float | None = None
    lowest: float | None = None
    places: tuple[Place, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the value is within its limits."""
        too_high = self.highest is not None and self.value > self.highest
        too_low = self.lowest is not None and self.value < self.lowest
        return not too_high and not too_low

    @property
    def limit(self) -> str:
        """As shown in the table."""
        if self.highest is not None and self.lowest is not None:
            return f"{self.lowest:g}-{self.highest:g}"
        if self.highest is not None:
            return f"<= {self.highest:g}"
        return f">= {self.lowest:g}" if self.lowest is not None else ""


def rows(files: Mapping[str, SourceFile], whole: Mapping[str, SourceFile]) -> list[Row]:
    """Every measure over ``files``.

    Args:
        files: by dotted module name, what is measured.
        whole: all files of the package, in which bases of classes are looked up.
    """
    chosen = list(files.values())
    deep = [place for place in depths(whole) if any(place.path == file.path for file in chosen)]
    return [
        *_paragraphs(chosen),
        *_density(chosen),
        *_words(chosen),
        _row("depth under LightningModule", _largest(deep), deep, highest=2),
        *_sizes(chosen),
    ]


def _paragraphs(files: Sequence[SourceFile]) -> list[Row]:
    """How code is broken up by blank lines and comments."""
    long = _places(measures.long_functions, files)
    solid = _places(measures.solid_functions, files)
    stretches = _places(measures.stretches, files)
    too_long = _over(stretches, MAX_STRETCH)
    return [
        _row("solid functions, %", 100 * len(solid) / max(1, len(long)), solid, highest=15),
        _row("solid functions", len(solid)),
        _row(f"stretches over {MAX_STRETCH} lines", len(too_long), too_long, highest=0),
        _row("lines of the longest stretch", _largest(stretches)),
    ]


def _density(files: Sequence[SourceFile]) -> list[Row]:
    """How much stands on one line."""
    num_lines = max(1, _total(measures.num_code_lines, files))
    num_nodes = _total(measures.num_nodes, files)
    tuples = _places(measures.tuple_assignments, files)
    nested = _places(measures.nested_comprehensions, files)
    ternaries = _places(measures.ternaries, files)
    dense = _places(measures.dense_lines, files)

    kloc = num_lines / 1000
    wide = _over(tuples, 2)
    deep = _over(nested, 2)
    return [
        _row("code lines", num_lines),
        _row("AST nodes per line", num_nodes / num_lines, dense, highest=5.5),
        _row("tuple assignments per 1,000 lines", len(tuples) / kloc, tuples, highest=4),
        _row("... of more than two names", len(wide), wide, highest=0),
        _row("nested comprehensions per 1,000 lines", len(nested) / kloc, nested, highest=2),
        _row("... of more than two levels", len(deep), deep, highest=0),
        _row("ternaries per 1,000 lines", len(ternaries) / kloc),
    ]


def _words(files: Sequence[SourceFile]) -> list[Row]:
    """What is said beside the code, and in which words."""
    num_lines = max(1, sum(len(file.lines) for file in files))
    num_comments = sum(len(file.comment_lines) for file in files)
    num_examples = _total(measures.num_examples, files)
    num_public = max(1, _total(measures.num_public, files))
    num_with_methods = max(1, num_public + _total(measures.num_public_methods, files))

    loose = _places(measures.loosely_typed, files)
    figures = _places(measures.figures_for_metrics, files)
    num_figures = sum(place.size for place in figures)
    return [
        _row("comments per 1,000 lines", 1000 * num_comments / num_lines, lowest=20, highest=60),
        _row("examples per 100 public", 100 * num_examples / num_public, lowest=25),
        _row("... methods counted too", 100 * num_examples / num_with_methods),
        _row("Any on a seam", len(loose), loose, highest=0),
        _row('"figures" for metrics', num_figures, figures, highest=0),
    ]


def _sizes(files: Sequence[SourceFile]) -> list[Row]:
    lengths = [Place(file.path, 1, "file", len(file.lines)) for file in files]
    functions = _places(measures.function_places, files)
    long_files = _over(lengths, MAX_FILE_LINES)
    long_functions = _over(functions, MAX_FUNCTION_LINES)
    return [
        _row(f"files over {MAX_FILE_LINES} lines", len(long_files), long_files, highest=0),
        _row("lines of the longest file", _largest(lengths)),
        _row(
            f"functions over {MAX_FUNCTION_LINES} lines",
            len(long_functions),
            long_functions,
            highest=0,
        ),
        _row("lines of the longest function", _largest(functions)),
    ]


def _row(
    name: str,
    value: float,
    places: Sequence[Place] = (),
    highest: float | None = None,
    lowest: float | None = None,
) -> Row:
    ordered = sorted(places, key=lambda place: -place.size)
    return Row(name, value, highest, lowest, tuple(ordered))


def _total(measure: Callable[[SourceFile], int], files: Sequence[SourceFile]) -> int:
    return sum(measure(file) for file in files)


def _places(
    measure: Callable[[SourceFile], list[Place]], files: Sequence[SourceFile]
) -> list[Place]:
    return [place for file in files for place in measure(file)]


def _over(places: Sequence[Place], limit: int) -> list[Place]:
    return [place for place in places if place.size > limit]


def _largest(places: Sequence[Place]) -> int:
    return max((place.size for place in places), default=0)


def read_package(root: Path = ROOT, package: str = PACKAGE) -> dict[str, SourceFile]:
    """Every file of the package by its dotted name; its paths are relative to ``root``."""
    files = {}
    for path in sorted((root / package).rglob("*.py")):
        relative = path.relative_to(root)
        parts = relative.with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        files[module] = SourceFile(path.read_text(encoding="utf-8"), relative.as_posix())
    return files


def folder_of(module: str) -> str:
    """``lightning_audiorl.data.audio.reading`` -> ``data``; a module of the package itself by its name."""
    return module.partition(".")[2].partition(".")[0]


def inside(module: str, folders: Sequence[str]) -> bool:
    """Whether a module stands in one of the folders, named as ``ops`` or ``data/audio``."""
    path = module.partition(".")[2].replace(".", "/")
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def number(value: float) -> str:
    """Counts as they are, shares and rates with one decimal."""
    return str(int(value)) if float(value).is_integer() else f"{value:.1f}"


def table(lines: Sequence[Sequence[str]]) -> str:
    """Columns, the first one to the left and the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    shown = []
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        shown.append("  ".join([line[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(shown)


def beside_peers(measured: Sequence[Row]) -> str:
    """The numbers of now, their limits, those of a3a158b and those of the peers."""
    lines = [["", "now", "limit", "", "a3a158b", *PEER_NAMES]]
    for row in measured:
        before = number(BEFORE[row.name]) if row.name in BEFORE else ""
        peers = (
            [number(value) for value in PEERS[row.name]]
            if row.name in PEERS
            else [""] * len(PEER_NAMES)
        )
        lines.append(
            [row.name, number(row.value), row.limit, "" if row.holds else "!", before, *peers]
        )
    return table(lines)


def by_folder(files: Mapping[str, SourceFile]) -> str:
    """One column per folder of the package; what breaks a limit has a mark."""
    folders = sorted({folder_of(module) for module in files if folder_of(module)})
    columns = []
    for folder in folders:
        chosen = {module: file for module, file in files.items() if inside(module, [folder])}
        columns.append(rows(chosen, files))

    lines = [["", *folders]]
    for across in zip(*columns, strict=True):
        lines.append(
            [across[0].name, *(number(row.value) + ("" if row.holds else "!") for row in across)]
        )
    return table(lines)


def worst_places(measured: Sequence[Row], count: int) -> str:
    """The first ``count`` places of every measure that has some."""
    shown = []
    for row in measured:
        if row.places:
            shown += ["", row.name, *(f"  {place}" for place in row.places[:count])]
    return "\n".join(shown)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="How openly the package is written, beside other codebases."
    )
    parser.add_argument(
        "--folder",
        nargs="+",
        default=[],
        help="folders or modules of the package, such as ops or data/audio",
    )
    parser.add_argument("--by-folder", action="store_true", help="one column per folder")
    parser.add_argument(
        "--worst", type=int, default=0, metavar="N", help="name the N worst places of each measure"
    )
    parser.add_argument("--check", action="store_true", help="exit code 1 beyond a limit")
    options = parser.parse_args(arguments)

    whole = read_package()
    folders = [
        folder.strip("/").removeprefix(f"{PACKAGE}/").removesuffix(".py")
        for folder in options.folder
    ]
    files = {
        module: file for module, file in whole.items() if not folders or inside(module, folders)
    }
    if not files:
        parser.error(f"no module of {PACKAGE} stands in {', '.join(folders)}")

    measured = rows(files, whole)
    print(by_folder(files) if options.by_folder else beside_peers(measured))
    if options.worst:
        print(worst_places(measured, options.worst))

    broken = [row for row in measured if not row.holds]
    if broken:
        print(f"\nBeyond their limits (!): {', '.join(row.name for row in broken)}")
    return 1 if broken and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
