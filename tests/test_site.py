"""The site of mkdocs.yml: it builds without a warning, and holds README, every page of docs/ and what they link to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.pages import ROOT


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    start = (tmp_path / "index.html").read_text()
    assert "Two commands" in start
    assert 'href="CONTRIBUTING.html"' in start
    assert 'href="source/configs.html"' in start
    for page in (ROOT / "docs").glob("*.md"):
        assert (tmp_path / f"{page.stem}.html").is_file() is not page.stem.endswith("_reading")

    # Docstrings: a table of arguments, and the example as code.
    rewards = (tmp_path / "reference" / "rewards.html").read_text()
    assert "lightning_audiorl.rewards.Hallucination" in rewards
    assert "doctest" in rewards or "&gt;&gt;&gt;" in rewards

    # Nothing is asked of a network when it is read.
    assert "fonts.googleapis.com" not in start
