"""docs/new_family.md: what it says a family has to write is what the classes ask for, and its files are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lightning_audiorl.models.asr import moonshine
from lightning_audiorl.models.decoding.audio_prompt import AudioPromptPolicy
from lightning_audiorl.models.decoding.uneven_clips import UnevenClipsPolicy

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "new_family.md").read_text()


@pytest.mark.parametrize("base", [AudioPromptPolicy, UnevenClipsPolicy])
def test_the_table_is_what_the_class_asks_for(base: type) -> None:
    table = PAGE.split(f"`{base.__name__}` of")[1].split("| method |")[1].split("\n\n")[0]
    named = set()
    for line in table.splitlines()[2:]:
        named |= set(re.findall(r"`(\w+)`", line.split("|")[1]))
    asked = set(base.__abstractmethods__)  # type: ignore[attr-defined]
    assert asked
    assert named == asked


def test_every_file_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)", PAGE)
    assert len(links) > 15
    for link in links:
        assert (ROOT / "docs" / link).resolve().exists(), link


def test_the_shortest_family_is_as_short_as_it_says() -> None:
    (said,) = re.findall(r"moonshine.py\), (\d+) lines", PAGE)
    lines = len(Path(moonshine.__file__).read_text().splitlines())
    assert abs(lines - int(said)) < 10
    others = (ROOT / "lightning_audiorl" / "models" / "asr").glob("[a-z]*.py")
    assert min(len(path.read_text().splitlines()) for path in others) == lines
