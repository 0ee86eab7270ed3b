"""The page of what is promised is made of the tests, and is up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import reliability


def test_the_page_is_what_the_tests_say() -> None:
    assert reliability.main([]) == 0


def test_a_fault_becomes_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reliability, "ROOT", tmp_path)
    path = tmp_path / "test_some.py"
    path.write_text(
        "import pytest\n\n"
        "@pytest.mark.fault('Audio', 'a | b', 'it is refused')\n"
        "@pytest.mark.slow\n"
        "def test_it(): ...\n"
    )
    (fault,) = reliability.faults_of(path)
    assert fault.is_slow
    assert "| a \\| b | it is refused | `test_some.py::test_it` (slow) |" in reliability.page(
        [fault]
    )


def test_an_area_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reliability, "ROOT", tmp_path)
    path = tmp_path / "test_some.py"
    path.write_text("import pytest\n\n@pytest.mark.fault('Else', 'a', 'b')\ndef test_it(): ...\n")
    with pytest.raises(ValueError, match=r"test_some.py:3: no area 'Else'"):
        list(reliability.faults_of(path))
