"""The benchmark of the subset builders runs, and its made-up data is what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import subset_builders

from lightning_audiorl.data.hypotheses.reader import row_fingerprint
from lightning_audiorl.data.hypotheses.schema import parse_line
from lightning_audiorl.data.mix import selection


def test_every_builder_is_measured(tmp_path: Path) -> None:
    subset_builders.make(tmp_path, 600)
    found = subset_builders.measure(tmp_path)
    kinds = {
        name
        for name in selection.__all__
        if isinstance(kind := getattr(selection, name), type)
        and issubclass(kind, selection.SubsetBuilder)
    }
    assert set(found["builders"].values()) == kinds - {"SubsetBuilder"}
    assert found["rows"] == 600
    assert all(0 < kept <= 12 for kept in found["kept"].values())
    assert found["kept"]["hallucinating"] == found["kept"]["random"] == 12
    assert (
        found["kept"]["control"] >= 8
    )  # as many as hallucinating, where others have the same length
    # Some calls are timed for all, so that the parts may add up to more than the whole.
    assert found["work_s"] > 0
    assert sum(found["seconds"].values()) > 0
    page = subset_builders.report(found | {"total_s": found["work_s"] + 1.0})
    assert page.count("no verdict on fewer rows") == 2
    assert all(f"{name} ({kind})" in page for name, kind in found["builders"].items())
    million = {
        "rows": 10**6,
        "total_s": 201.0,
        "work_s": 190.0,
        "peak_bytes": 700 * 10**6,
    }
    assert subset_builders.report(found | million).splitlines()[-2:] == [
        "time: 201 s for 1,000,000 rows; bar 200 s: MISSED",
        "memory: 700 MB for 1,000,000 rows; bar 700 MB: met",
    ]


def test_made_up_rows_are_mixed() -> None:
    corpus = subset_builders.Corpus(num_texts=1000, num_words=500)
    rows = [corpus.row(number) for number in range(2000)]
    assert len({row.id for row in rows}) == len({row.segments for row in rows}) == 2000
    assert sum(not row.text for row in rows) == 62
    assert 0.005 < sum(row.duration_s > 20 for row in rows) / 2000 < 0.2
    predicted = [parse_line(corpus.line(row, number)) for number, row in enumerate(rows)]
    assert [(one.id, one.fingerprint) for one in predicted] == [
        (row.id, row_fingerprint(row)) for row in rows
    ]
    samples = [sample for one in predicted for sample in one.samples]
    assert len(samples) == 2000 * subset_builders.NUM_SAMPLES
    assert sum(bool(sample.rules) for sample in samples) / len(samples) == pytest.approx(
        0.03, abs=0.01
    )
    assert 0.2 < sum(sample.errors.errors > 0 for sample in samples) / len(samples) < 0.8
