"""Rows of digits, however a recogniser writes them."""

from __future__ import annotations

import pytest

from lightning_audiorl.rewards.speech import spoken_errors
from lightning_audiorl.text import SpokenNumberNormaliser
from lightning_audiorl.types import Utterance


@pytest.mark.parametrize("heard", ["73", "7-3", "7, 3.", "7.3", "Seven, three.", "７３", " 7 3!"])
def test_a_row_of_digits_is_read_one_by_one(heard: str) -> None:
    normaliser = SpokenNumberNormaliser("en", reading="digits")
    row = Utterance("row", (), "seven three", 1.0)
    assert spoken_errors(row, heard, "char", normaliser).errors == 0
    assert normaliser.normalise(normaliser.normalise(heard)) == "seven three"


def test_a_number_that_is_said_as_one_is_not_a_row_of_digits() -> None:
    normaliser = SpokenNumberNormaliser("en", reading="digits")
    assert normaliser.normalise("thirteen") == "thirteen"
    assert normaliser.normalise("13.") == "one three"
    pytest.importorskip("num2words")
    assert SpokenNumberNormaliser("en").normalise("13.") == "thirteen"
    assert SpokenNumberNormaliser("de", reading="digits").normalise("73") == "sieben drei"


def test_another_reading_is_refused() -> None:
    with pytest.raises(ValueError, match=r"SpokenNumberNormaliser.reading: expected 'number' or"):
        SpokenNumberNormaliser("en", reading="word")  # type: ignore[arg-type]
