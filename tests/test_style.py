"""What `make style` measures, on examples that can be counted by hand."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import measures, style
from tools.class_tree import depths
from tools.measures import Place, SourceFile

PARAGRAPHS = '''
import os
from typing import Any


def short(x):
    """Says something.

    With a blank line in it.
    """
    a = 1
    b = 2

    # Since two are needed.
    c = 3  # a note at the end
    return a + b + c + x


class Owner:
    """Holds a method."""

    size: int = 1

    def method(self):
        # noqa: E501
        return os
'''


def read(source: str, path: str = "a.py") -> SourceFile:
    return SourceFile(textwrap.dedent(source), path)


def sizes(places: list[Place]) -> list[int]:
    return [place.size for place in places]


def function_of(num_lines: int, opened_after: int = 0) -> str:
    """A function with that many code lines in its body, and a blank line in between where asked for."""
    lines = ["    x = 1"] * num_lines
    if opened_after:
        lines.insert(opened_after, "")
    return "\n".join(["def f():", '    """Says', "", '    something."""', *lines, ""])


def test_stretches_lie_between_blank_lines_and_comments() -> None:
    file = read(PARAGRAPHS)
    assert [(place.name, place.line, place.size) for place in measures.stretches(file)] == [
        ("short", 11, 2),
        ("short", 15, 2),
        ("method", 26, 1),  # a directive is no comment for people
    ]


def test_a_stretch_goes_on_in_a_function_inside_another() -> None:
    source = """
    def outer():
        a = 1
        def inner():
            '''Says something.'''
            return a
        return inner
    """
    assert sizes(measures.stretches(read(source))) == [4]


@pytest.mark.parametrize(
    ("num_lines", "opened_after", "is_long", "is_solid"),
    [(19, 0, False, False), (20, 0, True, True), (20, 3, True, False), (40, 0, True, True)],
)
def test_solid_functions(num_lines: int, opened_after: int, is_long: bool, is_solid: bool) -> None:
    file = read(function_of(num_lines, opened_after))
    assert sizes(measures.long_functions(file)) == [num_lines] * is_long
    assert sizes(measures.solid_functions(file)) == [num_lines] * is_solid


def test_function_lines_are_those_of_signature_and_body() -> None:
    assert [(place.name, place.size) for place in measures.function_places(read(PARAGRAPHS))] == [
        ("short", 5),
        ("method", 2),
    ]


def test_lines_and_nodes() -> None:
    file = read(PARAGRAPHS)
    assert measures.num_code_lines(file) == 9
    assert file.comment_lines == {14}
    # Statement, name, expression and number; what is imported and said in docstrings does not count.
    assert measures.num_nodes(read('"""Doc."""\nimport os\nx = -1\n')) == 4
    assert measures.num_nodes(read("f(x, y=[i for i in z])\n")) == 10


def test_dense_lines() -> None:
    found = measures.dense_lines(read("x = 1\ny = [\n    i * i for i in z\n]\n"))
    assert {place.line: place.size for place in found} == {1: 3, 2: 3, 3: 5}


Measure = Callable[[SourceFile], list[Place]]


@pytest.mark.parametrize(
    ("measure", "source", "expected"),
    [
        (measures.tuple_assignments, "a, b = c, d", [2]),
        (measures.tuple_assignments, "self.a, self.b, self.c = x, y, z", [3]),
        (measures.tuple_assignments, "a, b = f()\na, b = b\npair = a, b", []),
        (measures.nested_comprehensions, "[x for x in y if x]", []),
        (measures.nested_comprehensions, "[x for y in z for x in y]", [2]),
        (measures.nested_comprehensions, "{k: [v for v in vs] for k, vs in z}", [2]),
        (measures.nested_comprehensions, "[any(v for v in vs) for z in q for vs in z]", [3]),
        (measures.ternaries, "a = b if c else (d if e else f)", [1, 1]),
        (measures.loosely_typed, "def f(policy: Any, audio_codec: Any, other: Any): pass", [1, 1]),
        (
            measures.loosely_typed,
            "strategy: Any = 1\nself.policy: Any = 2\nstrategies: Any = 3\ncodec: Codec = 4",
            [1, 1],
        ),
        (
            measures.figures_for_metrics,
            "figures = {}  # figures\nFIGURES = _figures_of(MyFigures)\nconfigures = 1",
            [2, 3],
        ),
        (measures.figures_for_metrics, "figure = 1\nrefigured = prefigure", [1]),
        (
            measures.figures_for_metrics,
            "from matplotlib.figure import Figure\nfigure = Figure()\nx = figures",
            [1],
        ),
        (measures.figures_for_metrics, 'OLD = {"callbacks.figures": "callbacks.tables"}', []),
    ],
)
def test_what_stands_on_a_line(measure: Measure, source: str, expected: list[int]) -> None:
    assert sizes(measure(read(source))) == expected


def test_examples_and_public_callables() -> None:
    source = """
    '''Module.

    >>> 1 + 1
    2
    '''

    def f():
        '''Without an example; >> is none.'''

    def _hidden():
        '''>>> _hidden()'''

    class Owner:
        '''Class.'''

        def __init__(self): ...

        def method(self):
            '''>>> 1
            1
            '''

        @property
        def size(self): ...

    class _Hidden:
        def method(self): ...
    """
    file = read(source)
    assert measures.num_examples(file) == 3
    assert measures.num_public(file) == 2
    assert measures.num_public_methods(file) == 1


def test_depth_follows_imports_and_other_names() -> None:
    files = {
        "p": read("from p.base import Base as Root", "p/__init__.py"),
        "p.base": read(
            "from lightning import LightningModule\nclass Base(LightningModule): ...", "p/base.py"
        ),
        "p.sub": read("", "p/sub/__init__.py"),
        "p.sub.one": read(
            "from p import Root\nclass One(Root): ...\nclass Plain: ...", "p/sub/one.py"
        ),
        "p.sub.two": read(
            "from . import one\nimport lightning\n"
            "class One(one.Plain): ...\n"
            "class Two(one.One, lightning.LightningModule): ...\n"
            "class Three(Two[int]): ...",
            "p/sub/two.py",
        ),
    }
    assert {(place.path, place.name): place.size for place in depths(files)} == {
        ("p/base.py", "Base"): 1,
        ("p/sub/one.py", "One"): 2,
        ("p/sub/two.py", "Two"): 3,
        ("p/sub/two.py", "Three"): 4,
    }


def write_package(folder: Path, source: str) -> Path:
    (folder / "p" / "ops").mkdir(parents=True)
    (folder / "p" / "__init__.py").write_text('"""Package."""\n')
    (folder / "p" / "ops" / "__init__.py").write_text(source)
    return folder


def test_check_fails_beyond_a_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_package(tmp_path, "a, b, c = 1, 2, 3\n")
    monkeypatch.setattr(style, "read_package", lambda: READ(root, "p"))
    assert style.main(["--check", "--worst", "1"]) == 1
    shown = capsys.readouterr().out
    assert "p/ops/__init__.py:1: a, b, c = 1, 2, 3 (3)" in shown
    assert "... of more than two names" in shown.rpartition("Beyond their limits")[2]
    assert style.main(["--folder", "ops"]) == 0
    assert style.main(["--by-folder"]) == 0
    with pytest.raises(SystemExit):
        style.main(["--folder", "attic"])


def test_check_passes_within_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_code = (
        '"""Module.\n\n>>> f()\n"""\n'
        + "# Since it is asked for.\n"
        + "def f() -> None: ...\n" * 20
    )
    root = write_package(tmp_path, open_code)
    monkeypatch.setattr(style, "read_package", lambda: READ(root, "p"))
    broken = [row.name for row in style.rows(READ(root, "p"), READ(root, "p")) if not row.holds]
    assert broken == ["examples per 100 public"]
    monkeypatch.setattr(measures, "num_public", lambda file: 1)
    assert style.main(["--check"]) == 0


READ = style.read_package


def test_names_of_modules_and_folders() -> None:
    package = style.read_package()
    assert {"lightning_audiorl", "lightning_audiorl.types", "lightning_audiorl.ops.kl"} <= set(
        package
    )
    assert style.folder_of("lightning_audiorl.data.audio.reading") == "data"
    assert style.inside("lightning_audiorl.data.audio.reading", ["data/audio"])
    assert not style.inside("lightning_audiorl.data.audio_other", ["data/audio"])


def test_every_number_of_a_peer_stands_in_the_table() -> None:
    package = style.read_package()
    names = {row.name for row in style.rows(package, package)}
    assert set(style.PEERS) <= names
    assert set(style.BEFORE) <= names
    assert {len(values) for values in style.PEERS.values()} == {len(style.PEER_NAMES)}


def test_the_measuring_code_is_open_itself() -> None:
    tools = style.read_package(package="tools")
    assert len(tools) >= 4
    for file in tools.values():
        assert measures.solid_functions(file) == []
        assert [place for place in measures.stretches(file) if place.size > style.MAX_STRETCH] == []
        assert measures.tuple_assignments(file) == []
