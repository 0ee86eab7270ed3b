"""Scenarios: YAML files beside this one, in the class paths of the base build."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent

#: What every scenario has otherwise, by design. The tables of evaluated samples have two lines a sample; the watch says
#: what to do, and speaks before the first step where an error rate is above 100 %, as that of these tiny models is.
MEANT = (
    "texts/val/*",
    "texts/hacking_watch/*",
    "checkpoint/callbacks/HackingWatch/alerts/*",
)


@dataclass(frozen=True)
class Scenario:
    """One run of ``audiorl fit``.

    Args:
        name: of its file.
        about: the file's first line.
        settings: of the run; FIXTURES and OUT stand for folders.
        resume: a run from the base build's checkpoint of this RL step is compared too; 0 for none.
        meant: patterns of ``kind/name`` that differ by design; why stands in the file.
        rounding: differences up to this are by design; why stands in the file.
    """

    name: str
    about: str
    settings: dict[str, Any]
    resume: int = 0
    meant: tuple[str, ...] = ()
    rounding: float = 0.0

    @property
    def devices(self) -> int:
        """Processes."""
        return int(self.settings["trainer"].get("devices", 1))

    @property
    def num_steps(self) -> int:
        """RL steps of the whole run."""
        return int(self.settings["model"]["init_args"]["num_steps"])

    def text(self, fixtures: Path, out: str = "run") -> str:
        """The YAML file."""
        dumped: str = yaml.safe_dump(self.settings, sort_keys=False)
        return dumped.replace("FIXTURES", str(fixtures)).replace("OUT", out)


def merged(base: Any, further: Any) -> Any:
    """``further`` laid over ``base``: mappings key by key, anything else as a whole.

    Example:
        >>> merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"c": 3}, "d": [2]})
        {'a': {'b': 1, 'c': 3}, 'd': [2]}
    """
    if not (isinstance(base, dict) and isinstance(further, dict)):
        return copy.deepcopy(further)
    out = copy.deepcopy(base)
    for key, value in further.items():
        out[key] = merged(out[key], value) if key in out else copy.deepcopy(value)
    return out


def _settings(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a file with those that it extends, and its own entry ``compare``."""
    settings = yaml.safe_load(path.read_text())
    own = settings.pop("compare", {})
    if "extends" in own:
        base, _ = _settings(FOLDER / own["extends"])
        settings = merged(base, settings)
    return settings, own


def scenarios() -> dict[str, Scenario]:
    """All of them by name: one process first, then two."""
    found = []
    for path in sorted(FOLDER.glob("*.yaml")):
        settings, own = _settings(path)
        about = path.read_text().splitlines()[0].lstrip("# ")
        meant = tuple(own.get("meant", ()))
        found.append(
            Scenario(
                path.stem,
                about,
                settings,
                resume=own.get("resume", 0),
                meant=meant,
                rounding=own.get("rounding", 0.0),
            )
        )
    found.sort(key=lambda scenario: scenario.devices)
    return {scenario.name: scenario for scenario in found}
