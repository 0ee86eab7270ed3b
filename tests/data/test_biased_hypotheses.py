"""Errors in the words of keywords, in lines of hypotheses and in what they say on the whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightning_audiorl.commands.predict import predicted
from lightning_audiorl.data.hypotheses.reader import HypothesisError, read_hypotheses, to_line
from lightning_audiorl.data.hypotheses.schema import Predicted, parse_line
from lightning_audiorl.data.hypotheses.summary import summary
from lightning_audiorl.engine.predict_module import Decoded, DecodedBatch
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.text import ErrorCounts
from lightning_audiorl.types import Hypothesis
from tests.text.cases import hypothesis


def lines_of(said: Sequence[Hypothesis]) -> list[Predicted]:
    """The lines of rows that were decoded once each."""
    groups = [[Decoded(one, "greedy", 0, -1.0)] for one in said]
    decoded = DecodedBatch(groups, 0.0, JudgePanel())
    return list(predicted(tuple(one.row for one in said), decoded, "base", keywords=[]))


@pytest.fixture(scope="module")
def lines() -> list[Predicted]:
    return lines_of(
        [
            hypothesis("call york now", "call cork york now", id="a", keywords=("york",)),
            hypothesis("turn left", "turn right", id="b"),
        ]
    )


def test_a_row_with_keywords_has_counts_of_their_words(lines: list[Predicted]) -> None:
    with_keywords, without = (line.samples[0] for line in lines)
    assert with_keywords.biased == ErrorCounts(hits=1)
    assert with_keywords.errors.insertions == 1
    assert without.biased is None
    assert "biased" not in json.loads(to_line(lines[1]))["samples"][0]


def test_lines_are_read_back_the_same(lines: list[Predicted]) -> None:
    assert [parse_line(to_line(line)) for line in lines] == lines


def test_the_table_has_both_rates(tmp_path: Path, lines: list[Predicted]) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text("".join(to_line(line) + "\n" for line in lines))
    titles, cells = summary(path).splitlines()
    assert "B-WER" in titles
    assert "U-WER" in titles
    # One insertion and one substitution in the four words that are no keyword.
    assert cells.split()[4:7] == ["40.0", "0.0", "50.0"]

    path.write_text(to_line(lines[1]) + "\n")
    assert "B-WER" not in summary(path)


def test_no_rates_apart_where_some_lines_are_not_counted(
    tmp_path: Path, lines: list[Predicted]
) -> None:
    """A file that an earlier version began, and this one ended."""
    older = replace(lines[0], samples=(replace(lines[0].samples[0], biased=None),))
    path = tmp_path / "h.jsonl"
    path.write_text("".join(to_line(line) + "\n" for line in (older, lines[0])))
    assert "B-WER" not in summary(path)


@pytest.mark.parametrize("counts", [[1, 2, 3], "1", [1, 0, 0, 0.5], {}])
def test_counts_that_are_none_are_refused(
    counts: Any, tmp_path: Path, lines: list[Predicted]
) -> None:
    line = json.loads(to_line(replace(lines[0])))
    line["samples"][0]["biased"] = counts
    path = tmp_path / "h.jsonl"
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(HypothesisError, match=r"line 1, field `samples\[0\]\.biased`: expected"):
        list(read_hypotheses(path))
