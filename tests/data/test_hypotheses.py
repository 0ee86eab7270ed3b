"""Hypotheses found beside their rows, and refused where they are not of them."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightning_audiorl.data.hypotheses import reader
from lightning_audiorl.data.hypotheses.reader import (
    HypothesisError,
    HypothesisFiles,
    Predicted,
    Sample,
    read_hypotheses,
    row_fingerprint,
    to_line,
)
from lightning_audiorl.data.hypotheses.summary import summary
from lightning_audiorl.text import ErrorCounts, KeywordCounts
from lightning_audiorl.types import Segment, Utterance

SAMPLE = Sample(
    "one two",
    "greedy",
    0,
    -1.25,
    3,
    True,
    ErrorCounts(1, 1, 0, 0),
    ("loop",),
    KeywordCounts(1, 2, 3),
)


def row(name: str, text: str = "one too", **changes: Any) -> Utterance:
    segments = (Segment("/data/a.wav", 1.5, 0.25), Segment("synthetic:silence", 0.5, 0.0, 0.125))
    return replace(Utterance(name, segments, text, 2.125), **changes)


def predicted(of: Utterance, model: str = "base", **changes: Any) -> Predicted:
    return replace(Predicted(of.id, model, of.text, row_fingerprint(of), (SAMPLE,), 0.5), **changes)


def write(path: Path, lines: list[Predicted]) -> str:
    path.write_text("".join(to_line(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def test_a_line_is_read_back_the_same(tmp_path: Path) -> None:
    lines = [
        predicted(row('a "quoted" \\ id\n')),
        predicted(row("é"), reference="ünï 零", samples=(SAMPLE, SAMPLE)),
    ]
    path = write(tmp_path / "h.jsonl", lines)
    assert list(read_hypotheses(path)) == lines
    assert len(Path(path).read_text(encoding="utf-8").splitlines()) == 2
    assert HypothesisFiles([path]).of(row('a "quoted" \\ id\n')) == (lines[0],)


def test_the_example_of_a_line() -> None:
    assert json.loads(to_line(predicted(row("a"))))["samples"] == [
        {
            "decoding": "greedy",
            "sample": 0,
            "text": "one two",
            "log_prob": -1.25,
            "num_tokens": 3,
            "finished": True,
            "errors": [1, 1, 0, 0],
            "rules": ["loop"],
            "keywords": [1, 2, 3],
        }
    ]


# --- what a row is


def test_a_fingerprint_says_nothing_of_folders_and_names() -> None:
    one = row("a")
    moved = tuple(
        replace(s, audio_filepath=s.audio_filepath.replace("/data/", "/other/place/"))
        for s in one.segments
    )
    assert moved != one.segments
    assert row_fingerprint(one) == row_fingerprint(
        replace(one, id="b", segments=moved, speaker="x", extra={"k": 1})
    )
    assert len(row_fingerprint(one)) == 16


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "one two"},
        {"lang": "zh"},
        {"effects": ("telephone",)},
        {"effects": ("noise", "telephone")},
        {"effects": ("noisetelephone",)},
        {"segments": row("a").segments[:1]},
        {"segments": row("a").segments[::-1]},
        *(
            {"segments": (replace(row("a").segments[0], **change), row("a").segments[1])}
            for change in (
                {"audio_filepath": "/data/b.wav"},
                {"offset_s": 0.26},
                {"duration_s": 1.6},
                {"gap_s": 0.01},
            )
        ),
        {"segments": (replace(row("a").segments[0], duration_s=None), row("a").segments[1])},
    ],
    ids=str,
)
def test_a_fingerprint_says_what_is_heard_and_spoken(changes: dict[str, Any]) -> None:
    others = [row("a"), row("a", effects=("telephone", "noise"))]
    assert row_fingerprint(row("a", **changes)) not in [row_fingerprint(other) for other in others]


# --- finding


def test_shuffled_lines_of_two_models_in_two_files(tmp_path: Path) -> None:
    rows = [row(f"r{number}") for number in range(50)]
    first = [predicted(one, "a", seconds=float(number)) for number, one in enumerate(rows)]
    second = [predicted(one, "b", seconds=float(number) + 0.5) for number, one in enumerate(rows)]
    paths = [
        write(tmp_path / "a.jsonl", first[::-1]),
        write(tmp_path / "b.jsonl", second[25:] + second[:25]),
    ]
    found = HypothesisFiles(paths)
    assert len(found) == 100
    assert [found.of(one) for one in rows] == list(zip(first, second, strict=True))
    assert HypothesisFiles(paths[::-1]).of(rows[7]) == (second[7], first[7])


def test_two_models_in_one_file_blank_lines_and_other_key_orders(tmp_path: Path) -> None:
    one = row("r")
    lines = [json.loads(to_line(predicted(one, model))) for model in ("a", "b")]
    text = "\n" + "\n\n".join(
        json.dumps(dict(sorted(line.items(), reverse=True))) for line in lines
    )
    (tmp_path / "h.jsonl").write_text(text)
    assert not text.startswith('\n{"id"')
    assert [line.model for line in HypothesisFiles([str(tmp_path / "h.jsonl")]).of(one)] == [
        "a",
        "b",
    ]


def test_ids_with_the_same_hash_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "id_key", lambda row_id: 3)
    rows = [row("a"), row("b", "other")]
    found = HypothesisFiles([write(tmp_path / "h.jsonl", [predicted(one) for one in rows])])
    assert [found.of(one) for one in rows] == [(predicted(one),) for one in rows]


def test_it_travels_to_another_process(tmp_path: Path) -> None:
    one = row("a")
    found = HypothesisFiles([write(tmp_path / "h.jsonl", [predicted(one)])])
    expected = found.of(one)
    assert pickle.loads(pickle.dumps(found)).of(one) == expected == (predicted(one),)


def test_an_index_holds_few_bytes_per_line(tmp_path: Path) -> None:
    num_rows = 4000
    path = write(
        tmp_path / "h.jsonl",
        [predicted(row(f"a-rather-long-id-{i:020d}")) for i in range(num_rows)],
    )
    tracemalloc.start()
    try:
        found = HypothesisFiles([path])
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == num_rows
    assert held < 25 * num_rows + 10_000
    assert peak < 100 * num_rows + 300_000


# --- refusing


def refusal(paths: list[str], one: Utterance) -> str:
    with pytest.raises(HypothesisError) as caught:
        HypothesisFiles(paths).of(one)
    return str(caught.value)


def test_a_row_without_a_line_is_refused(tmp_path: Path) -> None:
    said = refusal([write(tmp_path / "h.jsonl", [predicted(row("a"))])], row("b"))
    assert "h.jsonl: no hypotheses of row 'b'; run `audiorl predict` on this manifest" in said


def test_a_row_whose_text_changed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "h.jsonl", [predicted(row(name)) for name in "xyz"])
    said = refusal([path], row("y", "one two"))
    assert (
        "h.jsonl, line 2, field `reference`: row 'y' had 'one too' when it was decoded and has 'one two' now"
        in said
    )
    assert "`--overwrite true`" in said


def test_a_row_whose_audio_changed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "h.jsonl", [predicted(row("x"))])
    other = row("x", effects=("telephone",))
    said = refusal([path], other)
    assert "line 1, field `fingerprint`: row 'x' had" in said
    assert row_fingerprint(row("x")) in said
    assert row_fingerprint(other) in said


def test_two_lines_of_one_model_are_refused(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.jsonl", [predicted(row("x"))]) for name in "ab"]
    said = refusal(paths, row("x"))
    assert "b.jsonl, line 1: row 'x' has a second line of model 'base'" in said


def broken(**changes: Any) -> str:
    line = json.loads(to_line(predicted(row("x"))))
    for place, value in changes.items():
        where = line["samples"][0] if place.startswith("s_") else line
        where[place.removeprefix("s_")] = value
        if value is ...:
            del where[place.removeprefix("s_")]
    return json.dumps(line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (to_line(predicted(row("x")))[:-9], "field `(whole line)`: is not JSON in UTF-8"),
        ("[1]", "field `(whole line)`: expected an object {...}, got list [1]"),
        (broken(id=...), "field `id`: expected a string, it is missing"),
        (broken(id=7), "field `id`: expected a string, got int 7"),
        (broken(model=None), "field `model`: expected a string, got NoneType null"),
        (broken(seconds=True), "field `seconds`: expected a number, got bool true"),
        (broken(samples={}), "field `samples`: expected a list, got dict {}"),
        (broken(samples=[3]), "field `samples[0]`: expected an object"),
        (
            broken(s_errors=[1, 2, 3]),
            "field `samples[0].errors`: expected a list of 4 whole numbers, got list [1, 2, 3]",
        ),
        (
            broken(s_keywords=[1, 2, 0.5]),
            "field `samples[0].keywords`: expected a list of 3 whole numbers",
        ),
        (broken(s_finished=1), "field `samples[0].finished`: expected true or false, got int 1"),
        (broken(s_rules=[1]), "field `samples[0].rules`: expected a list of strings"),
        (broken(s_log_prob=...), "field `samples[0].log_prob`: expected a number, it is missing"),
    ],
)
def test_a_bad_line_is_named(line: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(to_line(predicted(row("a"))) + "\n\n" + line + "\n")
    said = refusal([str(path)], row("x"))
    assert said.startswith(f"{path}, line 3, {expected}")
    assert "`audiorl predict`" in said
    with pytest.raises(HypothesisError, match="line 3, field"):
        list(read_hypotheses(path))


def test_files_that_are_none(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(
        HypothesisError, match=r"empty.jsonl: holds no hypotheses; run `audiorl predict` again"
    ):
        HypothesisFiles([str(empty)])
    with pytest.raises(
        FileNotFoundError, match=r"none.jsonl: no such file of hypotheses; `audiorl predict` writes"
    ):
        HypothesisFiles([str(tmp_path / "none.jsonl")])
    for paths in ([], "h.jsonl"):
        with pytest.raises(HypothesisError, match="expected a list of one or more files"):
            HypothesisFiles(paths)


# --- on the whole


def test_a_summary_counts_by_model_and_decoding(tmp_path: Path) -> None:
    clean = replace(SAMPLE, rules=(), errors=ErrorCounts(2), decoding="sampled")
    lines = [
        predicted(row("a"), samples=(SAMPLE, clean, replace(SAMPLE, decoding="sampled", sample=1)))
    ]
    lines += [
        predicted(row("b"), samples=(SAMPLE,)),
        predicted(row("a"), "other", samples=(clean,)),
    ]
    shown = [line.split() for line in summary(write(tmp_path / "h.jsonl", lines)).splitlines()]
    assert shown[0][:6] == ["model", "decoding", "rows", "samples", "WER", "(%)"]
    assert shown[0][6:9] == ["rules", "fired", "(%)"]
    assert shown[1:] == [
        ["base", "greedy", "2", "2", "50.0", "100.0", "1.00"],
        ["base", "sampled", "2", "2", "25.0", "50.0", "1.00"],
        ["other", "sampled", "1", "1", "0.0", "0.0", "0.50"],
    ]


def test_a_summary_names_no_rate_where_nothing_was_spoken(tmp_path: Path) -> None:
    silent = replace(SAMPLE, errors=ErrorCounts(insertions=3))
    path = write(tmp_path / "h.jsonl", [predicted(row("a", ""), samples=(silent,))])
    assert summary(path, frozenset({"char"})).splitlines()[0].split()[4] == "CER"
    assert summary(path, frozenset({"char"})).splitlines()[1].split()[4] == "-"
    assert "WER/CER" in summary(path, frozenset({"char", "word"}))
