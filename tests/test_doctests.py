"""The examples in the package's docstrings, run as they stand there."""

from __future__ import annotations

import doctest
import importlib
from typing import Any

import pytest

from tools.measures import num_examples
from tools.style import read_package

#: A finder that finds nothing would pass; there are at least so many docstrings with examples.
AT_LEAST = 60


PACKAGE_FILES = read_package()
MODULES = [module for module, file in PACKAGE_FILES.items() if num_examples(file)]
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


class Finder(doctest.DocTestFinder):
    """Finds what stands behind a decorator, too, whose globals are not the module's."""

    def _from_module(self, module: Any, found: Any) -> bool:
        return (
            super()._from_module(module, found)
            or getattr(found, "__module__", None) == module.__name__
        )


def examples(module: str) -> list[doctest.DocTest]:
    """One per docstring of the module's own functions, classes and methods, names with an underscore included."""
    return [test for test in Finder().find(importlib.import_module(module)) if test.examples]


@pytest.mark.parametrize("module", MODULES)
def test_examples_hold(module: str) -> None:
    tests = examples(module)
    file = PACKAGE_FILES[module]
    assert len(tests) == num_examples(file), (
        f"{file.path}: an example stands where doctest does not find it"
    )

    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    reports: list[str] = []
    for test in tests:
        runner.run(test, out=reports.append)
    assert runner.failures == 0, "".join(reports)


def test_examples_are_found() -> None:
    assert sum(len(examples(module)) for module in MODULES) >= AT_LEAST
