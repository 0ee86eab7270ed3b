"""The house rules of docs/architecture.md, held by the syntax trees: import arrows, lengths, unwanted text."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools import measures
from tools.measures import Place, SourceFile
from tools.style import MAX_FILE_LINES, MAX_FUNCTION_LINES

PACKAGE = "lightning_audiorl"
ROOT = Path(__file__).parents[1]

# "path" or "path::function" -> why it may be longer. Without a reason nothing enters here.
LONGER: dict[str, str] = {}

# Folders and modules of the package whose code is still packed; what is opened leaves the list, and nothing enters it.
PACKED = (
    *("algorithms", "calibration", "callbacks", "codecs", "data", "judges", "metrics", "models", "planner"),
    *("prediction", "rewards", "strategies", "token2text"),
)


@dataclass(frozen=True)
class Room:
    """What the modules of one room may import, besides the standard library and the room itself."""

    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()


# models/ has modules that know a family of models and modules that do not; losses and engine see only the latter.
ANY_FAMILY = ("models.policy", "models.reference", "models.finetune")

ROOMS = {
    "fields": Room(outside=("torch",)),
    "types": Room(inside=("fields",), outside=("torch",)),
    "outline": Room(outside=("torch",)),
    "ops": Room(inside=("types",), outside=("torch",)),
    "text": Room(outside=("jiwer", "rapidfuzz")),
    "metrics": Room(inside=("text", "types", "ops", "judges"), outside=("torch", "torchmetrics", "jiwer")),
    "rewards": Room(inside=("text", "types", "models.policy", "judges", "token2text"), outside=("torch", "rapidfuzz")),
    "codecs": Room(
        inside=("fields", "types", "ops", "outline"),
        outside=("torch", "torchaudio", "transformers", "safetensors", "lightning"),
    ),
    "judges": Room(
        inside=("text", "types", "ops", "codecs", "models.policy"),
        outside=(
            *("torch", "torchaudio", "torchmetrics", "lightning", "transformers", "huggingface_hub"),
            *("speechbrain", "safetensors"),
        ),
    ),
    "token2text": Room(
        inside=("text", "types", "ops", "codecs", "judges", "models.reference"), outside=("torch", "lightning")
    ),
    "strategies": Room(inside=("types",), outside=("torch", "lightning")),
    "callbacks": Room(
        inside=("text", "types", "metrics", "models.policy", "strategies", "__version__"),
        outside=("torch", "torchaudio", "torchmetrics", "lightning", "numpy", "matplotlib", "soundfile"),
    ),
    # What a new algorithm is; a loss knows neither rank nor phase nor strategy.
    "losses.diffro": Room(
        inside=("types", "ops", "rewards", "losses", "models.policy", "models.reference"), outside=("torch",)
    ),
    "losses": Room(
        inside=("fields", "types", "ops", "rewards", "models.policy", "models.reference"),
        outside=("torch",),
    ),
    "engine": Room(
        inside=(
            "types",
            "ops",
            "losses",
            "metrics",
            "rewards",
            "judges.base",
            "judges.panel",
            "strategies",
            *ANY_FAMILY,
        ),
        outside=("torch", "torchmetrics", "lightning"),
    ),
    "algorithms": Room(
        inside=("types", "ops", "metrics", "rewards", "judges.base", "losses", "engine", "models.policy"),
        outside=("torch",),
    ),
}
# Folders of a folder are rooms too: their arrows point one way like those of the house. A module belongs to the room
# with the longest name that fits. Below, a folder may import what stands above it, and no more than it needs.
_BASE = ("models.finetune", "models.loading", "models.tiny_base")
ROOMS |= {
    "data.manifest": Room(inside=("types",), outside=("soundfile",)),
    "data.audio": Room(
        inside=("types", "ops", "data.manifest", "data.draws"), outside=("torch", "torchaudio", "soundfile")
    ),
    "data.transforms": Room(
        inside=("types", "ops", "text", "data.draws", "data.manifest", "data.audio"), outside=("torch",)
    ),
    "data.corpora": Room(
        inside=("types", "ops", "data.draws", "data.manifest", "data.audio", "data.transforms"),
        outside=("torch", "torchaudio", "soundfile", "numpy", "espeakng_loader"),
    ),
    "data.hypotheses": Room(inside=("types", "text"), outside=("numpy",)),
    "data.mix.selection": Room(
        inside=("types", "ops", "text", "data.manifest", "data.audio", "data.corpora", "data.hypotheses"),
        outside=("torch",),
    ),
    "data.mix": Room(
        inside=("types", "data.manifest", "data.audio", "data.hypotheses", "data.mix.selection"),
        outside=("numpy", "lightning"),
    ),
    "data.datamodules": Room(
        inside=(
            "types",
            "ops",
            "data.draws",
            "data.manifest",
            "data.audio",
            "data.corpora",
            "data.hypotheses",
            "data.mix",
        ),
        outside=("torch", "lightning"),
    ),
    "models.decoding": Room(
        inside=("fields", "types", "ops", "models.policy", *_BASE), outside=("torch", "transformers")
    ),
    "models.asr": Room(
        inside=("fields", "types", "models.policy", *_BASE, "models.decoding"),
        outside=("torch", "transformers"),
    ),
    "models.tts": Room(
        inside=("fields", "types", "codecs", "models.policy", *_BASE, "models.decoding"),
        outside=("torch", "torchaudio", "transformers"),
    ),
    "models": Room(
        inside=("fields", "types", "ops", "codecs", "outline"),
        outside=("torch", "transformers", "peft", "safetensors", "tokenizers"),
    ),
    "data": Room(),
}
# `audiorl plan` runs what the others hold, on tensors without values.
ROOMS["commands.plan"] = Room(
    inside=("types", "ops", "outline", "models", "strategies", "engine", "algorithms"),
    outside=("torch", "lightning", "jsonargparse", "yaml"),
)
EVERY_ROOM = tuple(name for name in ROOMS if "." not in name)
ROOMS |= {
    "": Room(inside=("moved",)),
    "moved": Room(),
    "commands": Room(inside=EVERY_ROOM, outside=("torch", "lightning")),
    "cli": Room(inside=(*EVERY_ROOM, "commands", "__version__"), outside=("torch", "lightning", "jsonargparse")),
    "__main__": Room(inside=("cli",)),
}


def module_name(path: Path) -> str:
    """``lightning_audiorl/ops/kl.py`` -> ``lightning_audiorl.ops.kl``; a package's ``__init__`` is the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, package: str) -> Iterator[str]:
    """Dotted names that ``source``, inside ``package``, imports anywhere, ``a.b.c`` for ``from a.b import c``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))


def room_of(module: str) -> str | None:
    """The room that ``module`` stands in, a folder's folder before the folder; None without one.

    ``lightning_audiorl.data.mix.selection.base`` stands in ``data.mix.selection``.
    """
    name = module.removeprefix(PACKAGE).removeprefix(".")
    fitting = [room for room in ROOMS if name == room or (room and name.startswith(f"{room}."))]
    return max(fitting, key=len, default=None)


def forbidden_imports(source: str, module: str, is_package: bool = False) -> list[str]:
    """The imports in ``source`` that its room does not allow; one line each."""
    room_name = room_of(module)
    if room_name is None:
        return [f"{module} stands in no room: add it to ROOMS and to docs/architecture.md"]
    room = ROOMS[room_name]
    inside = [f"{PACKAGE}.{name}" for name in (room_name, *room.inside) if name]
    package = module if is_package else module.rpartition(".")[0]
    bad = []
    for name in imports(source, package):
        top = name.split(".")[0]
        if top == PACKAGE:
            allowed = any(name == prefix or name.startswith(prefix + ".") for prefix in inside)
        else:
            allowed = top in sys.stdlib_module_names or top in room.outside
        if not allowed:
            bad.append(f"{module} may not import {name}")
    return bad


def too_long(source: str, path: str) -> list[str]:
    """The file and functions in ``source`` over the limits; docstrings, blank lines and comments are no code."""
    file = SourceFile(source, path)
    bad = []
    if len(file.lines) > MAX_FILE_LINES and path not in LONGER:
        bad.append(f"{path}: {len(file.lines)} lines, at most {MAX_FILE_LINES}")
    for place in measures.function_places(file):
        if place.size > MAX_FUNCTION_LINES and f"{path}::{place.name}" not in LONGER:
            bad.append(f"{path}::{place.name}: {place.size} lines of code, at most {MAX_FUNCTION_LINES}")
    return bad


def packed(file: SourceFile) -> list[Place]:
    """Functions without a paragraph, assignments of many names, comprehensions of many levels."""
    wide = [place for place in measures.tuple_assignments(file) if place.size > 2]
    deep = [place for place in measures.nested_comprehensions(file) if place.size > 2]
    return [*measures.solid_functions(file), *wide, *deep]


# A directory of somebody's machine, or a loose end. Written so that this file does not match itself.
UNWANTED = re.compile(r"(?<![\w.~}])/(?:home|root|work|Users|mnt|opt)/\w[^\s\"'`]*|\b(?:TO[D]O|FIX[M]E)\b")


def unwanted_text(text: str, path: str) -> list[str]:
    """Machine paths and loose ends in ``text``, with line numbers."""
    lines = enumerate(text.splitlines(), start=1)
    return [f"{path}:{number}: {match[0]}" for number, line in lines for match in UNWANTED.finditer(line)]


def package_files() -> list[Path]:
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def text_files() -> list[Path]:
    folders = [PACKAGE, "tests", "configs", "docs", "benchmarks", "experiments", "notebooks", "tools"]
    suffixes = {".py", ".md", ".yaml", ".toml", ".ipynb", ".json", ".jsonl", ".sh", ".csv"}
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
    return sorted([*found, *ROOT.glob("*.md"), *ROOT.glob("*.toml"), ROOT / "Makefile", ROOT / ".ci" / "run"])


def test_files_are_found() -> None:
    folders = {module_name(path.parent / "__init__.py").removeprefix(f"{PACKAGE}.") for path in package_files()}
    files = {"fields", "types", "", "moved", "cli", "__main__"}
    assert folders - {PACKAGE} == set(ROOMS) - files
    assert len(package_files()) > 20
    assert {ROOT / "README.md", ROOT / "Makefile", Path(__file__)} <= set(text_files())


def test_import_arrows() -> None:
    bad = [
        line
        for path in package_files()
        for line in forbidden_imports(path.read_text(), module_name(path), path.name == "__init__.py")
    ]
    assert bad == []


@pytest.mark.parametrize(
    ("module", "source", "num_bad"),
    [
        ("ops.kl", "import torch.nn.functional as F\nfrom lightning_audiorl.types import Rollout\nimport math", 0),
        ("ops.kl", "import numpy", 1),
        ("ops.kl", "def f():\n    from lightning_audiorl.models import policy", 1),
        ("text.errors", "import jiwer\nimport torch", 1),
        ("text.errors", "from lightning_audiorl.types import Utterance", 1),
        ("rewards.accuracy", "from ..text import errors\nfrom ..algorithms.grpo import GRPO", 1),
        ("rewards.accuracy", "from . import base", 0),
        ("data.audio.reading", "import importlib\nimportlib.import_module('transformers')", 1),
        ("strategies.phases", "from lightning_audiorl.algorithms import grpo", 1),
        ("algorithms.grpo", "from lightning_audiorl.models.policy import Policy", 0),
        ("algorithms.grpo", "from lightning_audiorl.models import Policy, policy", 1),
        ("algorithms.grpo", "from lightning_audiorl.models.policy_of_a_family import Policy", 1),
        ("algorithms.grpo", "from lightning_audiorl.data.module import AudioData", 1),
        ("callbacks.report", "from lightning_audiorl.algorithms.grpo import GRPO", 1),
        ("callbacks.report", "import lightning_audiorl.cli", 1),
        ("__main__", "from lightning_audiorl.cli import main", 0),
        ("commands.plan.meter", "from lightning_audiorl.commands.plan.placement import Plan", 0),
        ("commands.plan.meter", "from lightning_audiorl.commands.predict import predict", 1),
        ("data.mix.writer", "from lightning_audiorl.data.mix.selection import Candidate", 0),
        ("data.mix.selection.base", "from lightning_audiorl.data.mix.spec import RLSubset", 1),
        ("data.manifest.schema", "from lightning_audiorl.data.audio.nonspeech import NonSpeech", 1),
        ("data.manifest.schema", "from lightning_audiorl.data import NonSpeech", 1),
        ("attic.old", "", 1),
    ],
)
def test_import_arrows_on_examples(module: str, source: str, num_bad: int) -> None:
    assert len(forbidden_imports(source, f"{PACKAGE}.{module}")) == num_bad


def test_nobody_imports_the_cli() -> None:
    assert [name for name, room in ROOMS.items() if "cli" in room.inside] == ["__main__"]
    assert forbidden_imports("from .cli import main", PACKAGE, is_package=True) == [
        "lightning_audiorl may not import lightning_audiorl.cli.main"
    ]


def test_files_and_functions_are_short() -> None:
    bad = [line for path in package_files() for line in too_long(path.read_text(), str(path.relative_to(ROOT)))]
    assert bad == []


def test_longer_ones_exist_and_have_a_reason() -> None:
    for place, reason in LONGER.items():
        path, _, function = place.partition("::")
        assert len(reason.split()) > 3, f"{place}: say why"
        assert f"def {function}" in (ROOT / path).read_text(), f"{place}: gone, take it off the list"


def test_lengths_on_examples() -> None:
    body = "    x = 1\n"
    assert too_long("def f():\n" + body * (MAX_FUNCTION_LINES - 1), "a.py") == []
    assert too_long("def f():\n" + body * MAX_FUNCTION_LINES, "a.py") == ["a.py::f: 81 lines of code, at most 80"]
    open_body = '    """What.\n\n    More.\n    """\n' + "    # Why.\n\n" + body * (MAX_FUNCTION_LINES - 1)
    assert too_long("def f():\n" + open_body, "a.py") == []
    assert too_long("x = 1\n" * (MAX_FILE_LINES + 1), "a.py") == ["a.py: 501 lines, at most 500"]


def test_code_is_open() -> None:
    bad = []
    for path in package_files():
        folder = module_name(path).removeprefix(f"{PACKAGE}.").split(".")[0]
        if folder not in PACKED:
            bad += map(str, packed(SourceFile(path.read_text(), str(path.relative_to(ROOT)))))
    assert bad == []


def test_packed_code_on_examples() -> None:
    body = "    x = 1\n"
    assert packed(SourceFile("def f():\n" + body * 19)) == []
    assert packed(SourceFile("def f():\n" + body * 10 + "\n" + body * 10)) == []
    assert packed(SourceFile("a, b = c, d\n[x for y in z for x in y]\n")) == []
    bad = "def f():\n" + body * 20 + "a, b, c = d, e, f\n[x for y in z for v in y for x in v]\n"
    assert [place.line for place in packed(SourceFile(bad))] == [1, 22, 23]


def test_no_machine_paths_and_no_loose_ends() -> None:
    assert [
        line for path in text_files() for line in unwanted_text(path.read_text(), str(path.relative_to(ROOT)))
    ] == []


@pytest.mark.parametrize(
    ("text", "num_bad"),
    [
        ("open('/" + "home/me/data.jsonl')", 1),
        ("see /" + "work/runs/1, # TO" + "DO: later", 2),
        ("https://example.org/home/page and data/home/x and /path/to/manifest.jsonl", 0),
    ],
)
def test_unwanted_text_on_examples(text: str, num_bad: int) -> None:
    assert len(unwanted_text(text, "a.py")) == num_bad
