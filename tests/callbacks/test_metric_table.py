from __future__ import annotations

from math import nan

from lightning_audiorl.callbacks import metric_table
from lightning_audiorl.callbacks.outputs import markdown_table
from lightning_audiorl.callbacks.view import flat_metrics

START = {
    "short": {"wer": 0.1234, "length_ratio": 1.0},
    "long/sampled": {"wer": 2.5, "insertion_rate": nan},
}
END = {
    "short": {"wer": 0.1, "length_ratio": 0.975},
    "long/sampled": {"wer": 0.3, "insertion_rate": 0.0},
}


def cells(line: str) -> list[str]:
    return line.replace("noise text", "noise").replace("keyword F1", "keyword").split()


def test_one_evaluation_has_one_line_per_set() -> None:
    header, rule, *rows = metric_table(START).splitlines()
    assert cells(header) == [
        "set",
        "WER",
        "ins",
        "del",
        "correct",
        "loops",
        "halluc",
        "noise",
        "keyword",
        "length",
    ]
    assert set(rule) == {"-"}
    assert [row.split() for row in rows] == [
        ["short", "12.3", *"-------", "1.00"],
        ["long/sampled", "250.0", *"--------"],
    ]


def test_two_evaluations_stand_one_below_the_other() -> None:
    lines = metric_table(START, END, ("step 0", "step 9")).splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["short", "step", "0", "12.3", *"-------", "1.00"],
        ["step", "9", "10.0", *"-------", "0.97"],
        ["long/sampled", "step", "0", "250.0", *"--------"],
        ["step", "9", "30.0", "0.0", *"-------"],
    ]
    assert len({line.rstrip().rfind("WER") for line in lines[:1]}) == 1
    ends = {lines[0].index("WER") + 3} | {
        line.index(x) + len(x) for line, x in zip(lines[2:4], ("12.3", "10.0"), strict=True)
    }
    assert len(ends) == 1, "columns must be flush"


def test_a_set_that_only_the_second_evaluation_has_is_shown() -> None:
    assert "new" in metric_table(START, {**END, "new": {"wer": 0.5}})


def test_flat_metrics_are_log_keys() -> None:
    assert flat_metrics({"long/sampled": {"wer": 0.5}}) == {"val/long/sampled/wer": 0.5}


def test_markdown_cells_cannot_break_the_table() -> None:
    assert (
        markdown_table(["a", "b"], [["x|y", "line\nbreak"]]).splitlines()[2]
        == r"| x\|y | line break |"
    )
