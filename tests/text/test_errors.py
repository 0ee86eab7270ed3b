from __future__ import annotations

import random

import jiwer
import pytest

from lightning_audiorl.text import ErrorCounts, count_errors, count_errors_batch


def test_worked_numbers() -> None:
    counts = count_errors("a b c", "a x c d")
    assert counts == ErrorCounts(hits=2, substitutions=1, deletions=0, insertions=1)
    assert (counts.reference_length, counts.hypothesis_length, counts.errors) == (3, 4, 2)
    assert counts.rate == pytest.approx(2 / 3)
    assert count_errors("一二三四", "一三四", "char") == ErrorCounts(3, 0, 1, 0)


def test_empty_sides() -> None:
    assert count_errors("", "") == ErrorCounts()
    assert count_errors("", "").rate == 0
    assert count_errors("", "a b") == ErrorCounts(insertions=2)
    assert count_errors("", "a b").rate == 2
    assert count_errors("a b", "") == ErrorCounts(deletions=2)
    assert count_errors("a b", "").rate == 1


@pytest.mark.parametrize("unit", ["word", "char"])
def test_agrees_with_jiwer(unit: str) -> None:
    draw = random.Random(0)
    process = jiwer.process_words if unit == "word" else jiwer.process_characters
    for _ in range(100):
        reference, text = (" ".join(draw.choices("abcd", k=draw.randint(0, 9))) for _ in range(2))
        theirs = process(reference, text)
        ours = count_errors(reference, text, unit)  # type: ignore[arg-type]
        expected = ErrorCounts(
            theirs.hits, theirs.substitutions, theirs.deletions, theirs.insertions
        )
        assert ours == expected, (reference, text)


def test_batch_and_sum() -> None:
    counts = count_errors_batch(["a", "b c"], ["a", "b"])
    assert counts[0] + counts[1] == ErrorCounts(hits=2, deletions=1)
    with pytest.raises(ValueError, match="2 references and 1 hypotheses"):
        count_errors_batch(["a", "b"], ["a"])
