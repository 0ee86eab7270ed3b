"""Write constraints.txt: the versions that the tests have run with, of all that `make install` brings.

`pyproject.toml` gives ranges, for environments in which other packages live, too. `make install` takes the versions of
this file, so that the same commit gives the same environment later on. To move to newer ones: `make test-newest`, and
write the file from the environment that it has tested. Without `--write` the present environment is compared with it.

python -m tools.constraints [--write]
"""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "constraints.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

#: Extras that `make install` takes.
EXTRAS = ("synth", "test", "dev")

_HEAD = """\
# Versions that the tests have run with; `make install` takes these. Written from the environment that was tested:
# python -m tools.constraints --write
"""


def declared() -> list[Requirement]:
    """What pyproject.toml asks for, with `EXTRAS`."""
    extras = PROJECT["optional-dependencies"]
    lines = list(PROJECT["dependencies"])
    for extra in EXTRAS:
        lines += extras[extra]
    return [Requirement(line) for line in lines]


def wanted_by(requirement: Requirement) -> Iterator[Requirement]:
    """What an installed package asks for in turn, here and with the extras that it was asked for with."""
    for line in importlib.metadata.requires(requirement.name) or ():
        found = Requirement(line)
        if found.marker is None:
            yield found
            continue

        contexts = [{"extra": extra} for extra in ("", *requirement.extras)]
        if any(found.marker.evaluate(context) for context in contexts):
            yield found


def installed() -> tuple[dict[str, str], list[str]]:
    """Versions by name of all that is declared, directly or through others, and the names of what is not installed.

    pip's own tools are left out: they come with Python, and later Pythons want later ones.
    """
    versions: dict[str, str] = {}
    missing: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = declared()

    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        asked = (name, frozenset(requirement.extras))
        if asked in seen or name in ("pip", "setuptools", "wheel"):
            continue
        seen.add(asked)

        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.add(name)
            continue
        # A build's local part ("+cpu") is not what another machine can install.
        versions[name] = version.split("+")[0]
        waiting += wanted_by(requirement)

    return versions, sorted(missing)


def kept(text: str) -> dict[str, str]:
    """Versions by name of a constraints file's text.

    Example:
        >>> kept("# a remark\\ntorch==2.11.0\\n")
        {'torch': '2.11.0'}
    """
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def main(arguments: list[str]) -> int:
    versions, missing = installed()
    lines = [f"{name}=={version}" for name, version in sorted(versions.items())]
    if missing:
        print(f"Not installed here, so left free: {', '.join(missing)}", file=sys.stderr)
    if "--write" in arguments:
        FILE.write_text(_HEAD + "\n".join(lines) + "\n", encoding="utf-8")
        return 0

    others = {
        name: f"{version}, here {versions.get(name, 'none')}"
        for name, version in kept(FILE.read_text(encoding="utf-8")).items()
        if versions.get(name) != version
    }
    for name, difference in others.items():
        print(f"{name}: {difference}")
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
