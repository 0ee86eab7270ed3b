"""Biasing lists in the layout of LibriSpeech's (arXiv:2104.02194): rare words of an utterance, a list around them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_audiorl.data.layouts.base import Found, Layout, refused, text_lines
from lightning_audiorl.data.manifest.json_lines import show
from lightning_audiorl.data.manifest.schema import ManifestError

_COLUMNS = "id, text, JSON list of the rare words in it, JSON list of the words of the prompt"
_WORD = re.compile(r"[\w']+")


@dataclass(frozen=True)
class _List:
    """One line: what is said, the words of it that are rare, and those that a prompt names."""

    where: str
    text: str
    rare: list[str]
    listed: list[str] | None


@dataclass
class Biased(Layout):
    """The rows of another layout with ``keywords``, and ``hotwords``, from a file of biasing lists.

    Each line of the file has four columns with tabs between: the id of an utterance, its text, a JSON list of the rare
    words in that text, and a JSON list of the words that a prompt names, the rare ones among them. The first list
    becomes the row's ``keywords``, the second its ``hotwords``. A row without a line is refused.

    Args:
        layout: finds the rows; their ids are those of the file.
        file: the lists, such as ``test-clean.biasing_100.tsv``.
        hotwords: whether rows get the second list: False for a model that is not told any words.

    Attributes:
        num_unused: lines that no row had, once all rows were read.
    """

    layout: Layout
    file: str
    hotwords: bool = True
    source: str = field(init=False)
    num_unused: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.source = self.layout.source

    def inputs(self) -> list[Path]:
        return [*self.layout.inputs(), self._path]

    @property
    def _path(self) -> Path:
        path = Path(self.file).expanduser().absolute()
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file of biasing lists ({_COLUMNS})")
        return path

    def rows(self) -> Iterator[Found | ManifestError]:
        lists = self._lists()
        used: set[str] = set()
        for found in self.layout.rows():
            if isinstance(found, ManifestError):
                yield found
                continue
            name = str(found.fields["id"])
            used.add(name)
            try:
                fields = self._with_lists(found, lists.get(name))
            except ManifestError as error:
                yield error
                continue
            yield Found(found.where, fields, found.sure)
        self.num_unused = len(lists.keys() - used)

    def _with_lists(self, found: Found, own: _List | None) -> dict[str, Any]:
        fields = found.fields
        if own is None:
            problem = (
                f"{fields['id']!r} has no line in {self.file}; give the lists of this very set"
            )
            raise refused(found.where, "keywords", problem, "no biasing list")

        text = str(fields.get("text", ""))
        if _words(text) != _words(own.text):
            problem = (
                f"has {text[:60]!r}, and {own.where} {own.text[:60]!r}; give the lists of this set"
            )
            raise refused(found.where, "text", problem, "text of another list")
        added: dict[str, Any] = {"keywords": own.rare}
        if self.hotwords and own.listed is not None:
            added["hotwords"] = own.listed
        return {**fields, **added}

    def _lists(self) -> dict[str, _List]:
        """The lists by id.

        Raises:
            ManifestError: naming line and column.
        """
        lists: dict[str, _List] = {}
        path = self._path
        for where, line in text_lines(path, path.parent):
            if isinstance(line, ManifestError):
                raise line
            name, one = _read(line, where)
            if name in lists:
                problem = f"{name!r} stands in {lists[name].where} already; leave one of the two"
                raise refused(where, "id", problem, "duplicate id")
            lists[name] = one
        return lists


def _read(line: str, where: str) -> tuple[str, _List]:
    cells = line.split("\t")
    if len(cells) not in (3, 4):
        problem = f"has {len(cells)} columns with tabs between; expected {_COLUMNS}"
        raise refused(where, "(whole line)", problem, "number of columns")

    name, text, *columns = cells
    rare = _list(columns[0], where, "rare words")
    listed = _list(columns[1], where, "words of the prompt") if len(columns) > 1 else None

    said = f" {' '.join(_words(text))} "
    for word in rare:
        if f" {' '.join(_words(word))} " not in said:
            problem = f"{word!r} is not in the text {text[:60]!r}; list words that are said"
            raise refused(where, "rare words", problem, "word that is not said")
    return name, _List(where, text, rare, listed)


def _list(cell: str, where: str, column: str) -> list[str]:
    try:
        words = json.loads(cell)
    except ValueError as error:
        problem = f'is no JSON ({error}); expected a list such as ["word", "other"]'
        raise refused(where, column, problem, "bad JSON") from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        problem = f'expected a list such as ["word", "other"], got {show(words)}'
        raise refused(where, column, problem, "no list of words")
    # The lists of a set share their words: a million strings would be a few thousand otherwise held apart.
    return [sys.intern(word) for word in words]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
