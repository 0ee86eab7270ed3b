"""How open a file's code is, measured by its syntax tree and its tokens. Standard library only.

Words used below:

- A *code line* is neither blank nor only a comment, and no part of a docstring.
- An *open line* is blank or only a comment for people (``noqa`` is none), and no part of a docstring.
- A function's *body* is what stands below its signature and docstring; functions inside it belong to it.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp

#: A function of this many code lines in its body is long enough to need a paragraph.
PARAGRAPH_LINES = 20

# What an editor or a checker reads, and no person.
_DIRECTIVE = re.compile(r"#\s*(noqa|type:|pragma|ruff:|fmt:|mypy:|!)")
# As a word or as part of a name: figures, _figures_of, MyFigures.
_FIGURES = re.compile(r"(?<![a-z])(?:figures|FIGURES)(?![a-z])|Figures(?![a-z])")
_FIGURE = re.compile(r"(?<![A-Za-z])[Ff]igure(?![a-z])")
# The old place of a module, in a table of what still can be imported.
_MODULE_PATH = re.compile(r"""(?<=["'])[a-z_.]+\.figures(?=["'])""")
# A file that draws has figures in the other sense.
_DRAWS = re.compile(r"matplotlib|savefig")
_LOOSELY_TYPED = re.compile(r"(^|_)(policy|strategy|codec)$")
# Counted as nodes; operators, contexts and argument lists go with the expressions that hold them.
_COUNTED = (ast.stmt, ast.expr, ast.keyword, ast.comprehension)
_IMPORTS = (ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class Place:
    """Where something was found, and how bad it is; the largest ``size`` is the worst.

    Args:
        path: of the file, as given to `SourceFile`.
        line: counted from 1.
        name: function or class, or the line's own text.
        size: what was counted there.
    """

    path: str
    line: int
    name: str
    size: int = 1

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name} ({self.size})"


class SourceFile:
    """One file's text, read once: its tree, and which of its lines are code, comment, docstring or blank."""

    def __init__(self, source: str, path: str = "") -> None:
        self.path = path
        self.lines = source.splitlines()
        self.tree = ast.parse(source)
        self.nodes = list(ast.walk(self.tree))

        self.docstrings = [
            docstring for node in self.nodes if (docstring := docstring_of(node)) is not None
        ]
        docstring_lines = {line for docstring in self.docstrings for line in _span(docstring)}

        tokens = [
            t
            for t in tokenize.generate_tokens(io.StringIO(source).readline)
            if t.type == tokenize.COMMENT
        ]
        alone = [t for t in tokens if not t.line[: t.start[1]].strip()]
        #: Lines that are a comment for people, and nothing else.
        self.comment_lines = {t.start[0] for t in alone if not _DIRECTIVE.match(t.string)}

        blank = {i for i, line in enumerate(self.lines, start=1) if not line.strip()}
        self.open_lines = (self.comment_lines | blank) - docstring_lines
        not_code = docstring_lines | blank | {t.start[0] for t in alone}
        self.code_lines = set(range(1, len(self.lines) + 1)) - not_code

    @cached_property
    def functions(self) -> list[Function]:
        """All of them, methods and functions inside functions too."""
        return [node for node in self.nodes if isinstance(node, Function)]

    @cached_property
    def outer_functions(self) -> list[Function]:
        """Functions and methods that stand inside no other function."""
        inner = set()
        for function in self.functions:
            inner |= {id(node) for node in ast.walk(function) if node is not function}
        return [function for function in self.functions if id(function) not in inner]

    def place(self, node: ast.stmt | ast.expr, size: int = 1, name: str = "") -> Place:
        """Of a node; without a name, the text of its first line."""
        return Place(self.path, node.lineno, name or self.lines[node.lineno - 1].strip(), size)


def docstring_of(node: ast.AST) -> ast.Expr | None:
    """The statement that is the docstring of a module, class or function."""
    if not isinstance(node, Documented) or not node.body:
        return None
    first = node.body[0]
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        return first
    return None


def body_lines(function: Function) -> range:
    """Lines of the body, from its first statement after the docstring to its last."""
    statements = function.body[1:] if docstring_of(function) else function.body
    if not statements:
        return range(0)
    return range(statements[0].lineno, (function.end_lineno or 0) + 1)


def function_stretches(file: SourceFile, function: Function) -> list[Place]:
    """Runs of code lines without an open line between them in the body; their size is the number of code lines.

    A function of three lines, a blank one and two more has two, of sizes 3 and 2.
    """
    found: list[list[int]] = [[]]
    for line in body_lines(function):
        if line in file.code_lines:
            found[-1].append(line)
        elif line in file.open_lines:
            found.append([])
    return [Place(file.path, lines[0], function.name, len(lines)) for lines in found if lines]


def function_lines(file: SourceFile, function: Function) -> int:
    """Code lines from ``def`` to the end: signature and body, without docstrings, blank lines and comments."""
    return sum(line in file.code_lines for line in _span(function))


def function_places(file: SourceFile) -> list[Place]:
    """All functions; their size is `function_lines`."""
    return [
        file.place(function, function_lines(file, function), function.name)
        for function in file.functions
    ]


def solid_functions(file: SourceFile) -> list[Place]:
    """Functions with `PARAGRAPH_LINES` or more code lines in the body, and not one open line between them."""
    found = []
    for function in file.functions:
        runs = function_stretches(file, function)
        if len(runs) == 1 and runs[0].size >= PARAGRAPH_LINES:
            found.append(file.place(function, runs[0].size, function.name))
    return found


def long_functions(file: SourceFile) -> list[Place]:
    """All functions with `PARAGRAPH_LINES` or more code lines in the body, solid or not."""
    found = []
    for function in file.functions:
        size = sum(run.size for run in function_stretches(file, function))
        if size >= PARAGRAPH_LINES:
            found.append(file.place(function, size, function.name))
    return found


def stretches(file: SourceFile) -> list[Place]:
    """Runs of code lines in all functions and methods; those of functions inside them are among theirs."""
    found = []
    for function in file.outer_functions:
        found += function_stretches(file, function)
    return found


def tuple_assignments(file: SourceFile) -> list[Place]:
    """``a, b = c, d``: as many values as names on one line; unpacking what a call returns is none."""
    found = []
    for node in file.nodes:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            sizes = [len(target.elts) for target in node.targets if isinstance(target, ast.Tuple)]
            found += [file.place(node, max(sizes))] if sizes else []
    return found


def nested_comprehensions(file: SourceFile) -> list[Place]:
    """Comprehensions with two or more ``for``, one in another or one after the other; their size is the levels."""
    found = []
    for node in file.nodes:
        if isinstance(node, Comprehension):
            levels = comprehension_levels(node)
            found += [file.place(node, levels)] if levels >= 2 else []
    return found


def comprehension_levels(node: Comprehension) -> int:
    """``for`` clauses of a comprehension, and of the deepest one that stands inside it."""
    inner = [
        inside
        for inside in ast.walk(node)
        if inside is not node and isinstance(inside, Comprehension)
    ]
    return len(node.generators) + max(map(comprehension_levels, inner), default=0)


def ternaries(file: SourceFile) -> list[Place]:
    """``a if b else c``."""
    return [file.place(node) for node in file.nodes if isinstance(node, ast.IfExp)]


def loosely_typed(file: SourceFile) -> list[Place]:
    """Arguments, variables and attributes named policy, strategy or codec that are annotated as ``Any``."""
    found = []
    for node in file.nodes:
        if isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.AnnAssign):
            name = ast.unparse(node.target).rpartition(".")[2]
        else:
            continue
        is_any = isinstance(node.annotation, ast.Name) and node.annotation.id == "Any"
        if is_any and _LOOSELY_TYPED.search(name):
            found.append(Place(file.path, node.lineno, name))
    return found


def figures_for_metrics(file: SourceFile) -> list[Place]:
    """Lines with the word figures, or figure, in names, comments and texts; their size is how often.

    In a file that draws, one figure is a picture and does not count.
    """
    draws = any(_DRAWS.search(line) for line in file.lines)
    found = []
    for number, line in enumerate(file.lines, start=1):
        text = _MODULE_PATH.sub("", line)
        count = len(_FIGURES.findall(text))
        if not draws:
            count += len(_FIGURE.findall(text))
        if count:
            found.append(Place(file.path, number, line.strip(), count))
    return found


def counted_nodes(file: SourceFile) -> list[ast.AST]:
    """Statements, expressions, keyword arguments and ``for`` clauses; docstrings and imports left out."""
    docstrings = set()
    for docstring in file.docstrings:
        docstrings |= {id(docstring), id(docstring.value)}

    nodes = [
        node for node in file.nodes if isinstance(node, _COUNTED) and not isinstance(node, _IMPORTS)
    ]
    return [node for node in nodes if id(node) not in docstrings]


def num_nodes(file: SourceFile) -> int:
    """How many `counted_nodes` there are."""
    return len(counted_nodes(file))


def dense_lines(file: SourceFile) -> list[Place]:
    """Every code line; its size is the number of `counted_nodes` that begin on it."""
    # A ``for`` clause has no place of its own; its target and its iterable have.
    placed = [
        node for node in counted_nodes(file) if isinstance(node, ast.stmt | ast.expr | ast.keyword)
    ]
    lines = [node.lineno for node in placed]
    return [
        Place(file.path, line, file.lines[line - 1].strip(), size)
        for line, size in Counter(lines).items()
    ]


def num_code_lines(file: SourceFile) -> int:
    """Code lines without imports: what the numbers per 1,000 lines are divided by."""
    imports = set()
    for node in file.nodes:
        if isinstance(node, _IMPORTS):
            imports |= set(_span(node))
    return len(file.code_lines - imports)


def num_examples(file: SourceFile) -> int:
    """Docstrings that hold a doctest."""
    return sum(">>> " in ast.literal_eval(docstring.value) for docstring in file.docstrings)


def num_public(file: SourceFile) -> int:
    """Public functions and classes of the module: what a user imports and calls."""
    return sum(_is_public(node) for node in file.tree.body)


def num_public_methods(file: SourceFile) -> int:
    """Public methods of public classes; properties are none."""
    owners = [
        node for node in file.tree.body if isinstance(node, ast.ClassDef) and _is_public(node)
    ]
    methods = [node for owner in owners for node in owner.body if isinstance(node, Function)]
    return sum(_is_public(method) and not _is_property(method) for method in methods)


def _is_public(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_")


def _is_property(function: Function) -> bool:
    return any(
        ast.unparse(decorator).endswith(("property", ".setter"))
        for decorator in function.decorator_list
    )


def _span(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)
