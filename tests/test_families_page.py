"""The page of families is made of the tests, and every cell of it is shown by one."""

from __future__ import annotations

import pytest

from tests.models.records import RECORDS
from tests.models.tts_records import TTS_RECORDS
from tools import families


def test_the_page_is_what_the_tests_show() -> None:
    assert set(families.ROWS) == {"fun_asr_nano", "whisper", *RECORDS}
    assert set(families.SPEECH_ROWS) == set(TTS_RECORDS)
    assert families.main([]) == 0


def test_a_cell_that_fails_or_has_no_test_says_so() -> None:
    tests = {("canary", "export"): ["a.py::test"], ("canary", "plan"): ["b.py::test"]}
    written = families.page(tests, {("canary", "export"): True})
    (row,) = (line for line in written.splitlines() if line.startswith("| Canary"))
    assert row.split(" | ")[1:7] == ["no test"] * 4 + ["not run", "fails"]
    assert "| export | `a.py::test` |" in written


def test_a_column_that_is_none_is_refused() -> None:
    marks = {"cell": ("speed",), "parametrize": ("family", ["canary"])}
    with pytest.raises(ValueError, match="t: no column 'speed'; there are loads"):
        families._cells_of(marks, "t")
    marks = {"cell": ("plan",), "parametrize": ("other", ["canary"])}
    with pytest.raises(ValueError, match="is parametrised by the family alone"):
        families._cells_of(marks, "t")
