"""Misspelt classes and settings in YAML, found in the source of the classes: importing them, and torch, takes seconds.

Only what is certain is reported, see `first_mistake`; everything else is left to the parser, which imports the classes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent
_CLASS = re.compile(r"^class (\w+)\b", re.MULTILINE)

#: Of a section that is always of one class.
_SECTIONS = {
    "checkpoint": "RLCheckpoint",
    "early_stop": "EarlyStop",
    "export": "Export",
    "hacking_watch": "HackingWatch",
    "progress": "PhaseProgressBar",
    "report": "RunReport",
    "samples": "SampleLogger",
    "trainer": "Trainer",
}


@dataclass(frozen=True)
class Mistake:
    """A name that does not exist.

    Args:
        where: the classes around it, such as ``model: GRPO > optim: Optim``.
        owner: the class whose setting it was to be; empty where the name is that of a class.
        name: as it is written.
        known: what there is in its place.
    """

    where: str
    owner: str
    name: str
    known: list[str]


@cache
def _files() -> dict[str, list[Path]]:
    """Where each class of the package stands; of one name there may be two."""
    found: dict[str, list[Path]] = {}
    for path in _ROOT.rglob("*.py"):
        for name in _CLASS.findall(path.read_text(encoding="utf-8")):
            found.setdefault(name, []).append(path)
    lightning = find_spec("lightning")
    if lightning is not None and lightning.origin is not None:
        found["Trainer"] = [Path(lightning.origin).parent / "pytorch" / "trainer" / "trainer.py"]
    return found


@cache
def _module(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _definitions(name: str) -> list[ast.ClassDef]:
    nodes = [node for path in _files().get(name, []) for node in _module(path).body]
    return [node for node in nodes if isinstance(node, ast.ClassDef) and node.name == name]


@cache
def settings_of(name: str) -> Mapping[str, frozenset[str]] | None:
    """The settings of a class, each with the names in its annotation; None where they are not certain.

    Args:
        name: of a class of this package, without its module, or ``Trainer``. Of two classes of one name, such as GRPO
            the algorithm and GRPO the objective, those of both.

    Example:
        >>> sorted(settings_of("Accuracy"))[:2]
        ['floor', 'name']
        >>> settings_of("Unheard")
    """
    found: dict[str, frozenset[str]] = {}
    for node in _definitions(name):
        settings = _settings(node)
        if settings is None:
            return None
        for setting, names in settings.items():
            found[setting] = found.get(setting, frozenset()) | names
    return found if _definitions(name) else None


def _settings(node: ast.ClassDef) -> Mapping[str, frozenset[str]] | None:
    """Of one class; None where it hands some on to a base that is not ours."""
    methods = [one for one in node.body if isinstance(one, ast.FunctionDef)]
    init = next((one for one in methods if one.name == "__init__"), None)
    if init is None and _is_dataclass(node):
        return _fields(node)

    found: dict[str, frozenset[str]] = {}
    if init is not None:
        arguments = [*init.args.args[1:], *init.args.kwonlyargs]
        found = {one.arg: _names(one.annotation) for one in arguments}
        if init.args.kwarg is None:
            return found

    # It hands on what it does not know, or has no constructor of its own.
    known = [settings_of(base) for base in _bases(node) if base != node.name]
    if not known or len(known) != len(node.bases):
        return None
    for settings in known:
        if settings is None:
            return None
        found |= settings
    return found


def _bases(node: ast.ClassDef) -> list[str]:
    return [base.id for base in node.bases if isinstance(base, ast.Name)]


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("'dataclass'" in ast.dump(decorator) for decorator in node.decorator_list)


def _fields(node: ast.ClassDef) -> dict[str, frozenset[str]]:
    """What the constructor of a dataclass takes: fields of its bases, and its own."""
    found: dict[str, frozenset[str]] = {}
    for name in _bases(node):
        for base in _definitions(name):
            if _is_dataclass(base):
                found |= _fields(base)

    for field in node.body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        names = _names(field.annotation)
        is_set_later = field.value is not None and "arg='init'" in ast.dump(field.value)
        if not ({"ClassVar", "KW_ONLY"} & names or is_set_later):
            found[field.target.id] = names
    return found


def _names(annotation: ast.expr | None) -> frozenset[str]:
    """Every name that stands in an annotation."""
    if annotation is None:
        return frozenset()
    return frozenset(node.id for node in ast.walk(annotation) if isinstance(node, ast.Name))


def first_mistake(settings: Mapping[str, Any]) -> Mistake | None:
    """The first name of a YAML file that surely does not exist.

    A class is known by its name alone, or as a part of this package; where the file names a class of somebody else's,
    short names may be of that module. A setting is certain where its class is, and hands nothing on to a foreign base.

    Args:
        settings: of a YAML file, of one of Lightning's commands.

    Example:
        >>> model = {"class_path": "GRPO", "init_args": {"optim": {"rate": 1.0}}}
        >>> found = first_mistake({"model": model})
        >>> found.where, found.owner, found.name
        ('model: GRPO > optim: Optim', 'Optim', 'rate')
    """
    paths = list(_class_paths(settings))
    is_ours = all("." not in path or path.startswith("lightning_audiorl.") for path in paths)
    for section, value in settings.items():
        if section in ("model", "data"):
            mistakes = _mistakes_of_class(value, [section], is_ours)
        elif section in _SECTIONS and isinstance(value, dict):
            mistakes = _mistakes_within(value, _SECTIONS[section], [section], is_ours)
        else:
            continue
        found = next(mistakes, None)
        if found is not None:
            return found
    return None


def _class_paths(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _class_paths(item)
    elif isinstance(node, dict):
        path = node.get("class_path")
        if isinstance(path, str):
            yield path
        for value in node.values():
            yield from _class_paths(value)


def _mistakes_of_class(node: Any, places: list[str], is_ours: bool) -> Iterator[Mistake]:
    """What is wrong with ``{class_path: ..., init_args: {...}}`` and below."""
    if not isinstance(node, dict) or not isinstance(node.get("class_path"), str):
        return
    path = node["class_path"]
    name = path.removeprefix("lightning_audiorl.").rpartition(".")[2]
    is_short = "." not in path
    if is_short and is_ours and name not in _files():
        yield Mistake(" > ".join(places), "", name, sorted(_files()))
    if is_short or path.startswith("lightning_audiorl."):
        yield from _mistakes_within(node.get("init_args"), name, places, is_ours)


def _mistakes_within(given: Any, owner: str, places: list[str], is_ours: bool) -> Iterator[Mistake]:
    """What is wrong with the settings of a class, and below."""
    known = settings_of(owner)
    if known is None or not isinstance(given, dict):
        return

    # A section of the command is named by itself, a class by its name as well.
    is_section = owner in _SECTIONS.values()
    inside = places if is_section else [*places[:-1], f"{places[-1]}: {owner}"]
    for name, value in given.items():
        if name not in known:
            yield Mistake(" > ".join(inside), owner, str(name), list(known))
            continue

        # What the trainer takes are classes of Lightning.
        if is_section:
            continue
        below = [*inside, str(name)]
        annotated = _one_class(known[name])
        if annotated and isinstance(value, dict) and not {"class_path", "init_args"} & set(value):
            yield from _mistakes_within(value, annotated, below, is_ours)
            continue
        for section in _with_class(value):
            yield from _mistakes_of_class(section, below, is_ours)


def _one_class(annotation: frozenset[str]) -> str:
    """The class of this package that an annotation names, where it is one section of one class; else nothing."""
    ours = [name for name in annotation if name in _files()]
    is_many = bool({"dict", "list", "Mapping", "Sequence"} & annotation)
    return ours[0] if len(ours) == 1 and not is_many else ""


def _with_class(node: Any) -> Iterator[dict[str, Any]]:
    """The outermost sections that name their class."""
    if isinstance(node, dict) and "class_path" in node:
        yield node
    elif isinstance(node, dict | list):
        for below in node.values() if isinstance(node, dict) else node:
            yield from _with_class(below)
