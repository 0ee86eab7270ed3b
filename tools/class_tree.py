"""Which class of the package stands how deep under a foreign class, by the syntax trees alone."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping

from tools.measures import Place, SourceFile

#: (module, name) of something that a module defines or brings in.
Name = tuple[str, str]


def depths(files: Mapping[str, SourceFile], root: str = "LightningModule") -> list[Place]:
    """Classes that descend from a foreign class named ``root``; their size is how many of ours lead there, self too.

    A class whose base is ``root`` itself has 1, a class derived from that one 2.

    Args:
        files: by dotted module name; a package's ``__init__`` by that of the package.
        root: the foreign class's own name.
    """
    tree = _Tree(files)
    found = []
    for module, file in files.items():
        for node in file.nodes:
            if isinstance(node, ast.ClassDef):
                depth = tree.depth((module, node.name), root)
                found += [file.place(node, depth, node.name)] if depth else []
    return found


class _Tree:
    """Bases of every class, with names followed through imports and re-exports."""

    def __init__(self, files: Mapping[str, SourceFile]) -> None:
        self.modules = set(files)
        self.bases: dict[Name, list[Name]] = {}
        self.imported: dict[Name, Name] = {}
        for module, file in files.items():
            package = module if file.path.endswith("__init__.py") else module.rpartition(".")[0]
            for node in file.nodes:
                if isinstance(node, ast.ImportFrom):
                    self._add_import(node, module, package)
                elif isinstance(node, ast.ClassDef):
                    self.bases[module, node.name] = [(module, _dotted(base)) for base in node.bases]

    def depth(self, name: Name, root: str) -> int:
        """Classes of ours from ``name`` up to ``root``, along the longest way; 0 where no way leads there."""
        if name not in self.bases:
            return 0
        deepest = 0
        for base in self.bases[name]:
            found = self.resolve(*base)
            if found in self.bases:
                above = self.depth(found, root)
                deepest = max(deepest, above + 1 if above else 0)
            elif found[1] == root:
                deepest = max(deepest, 1)
        return deepest

    def resolve(self, module: str, dotted: str) -> Name:
        """Where the class that ``module`` calls ``dotted`` is defined; a foreign one keeps its last name."""
        first, _, rest = dotted.partition(".")
        if rest:
            owner = self._module(module, first)
            return (
                self.resolve(owner, rest)
                if owner in self.modules
                else (owner, rest.rpartition(".")[2])
            )

        seen = set()
        name = (module, first)
        while name in self.imported and name not in seen:
            seen.add(name)
            name = self.imported[name]
        return name

    def _module(self, module: str, first: str) -> str:
        """The module that ``first`` stands for in ``module``: ``from package import first``."""
        origin, name = self.imported.get((module, first), ("", first))
        return f"{origin}.{name}" if origin else name

    def _add_import(self, node: ast.ImportFrom, module: str, package: str) -> None:
        origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        for alias in node.names:
            self.imported[module, alias.asname or alias.name] = (origin, alias.name)


def _dotted(base: ast.expr) -> str:
    """``Base``, ``module.Base``; of ``Base[T]``, ``Base``."""
    return ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
