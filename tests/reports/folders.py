"""Folders of runs as a fit leaves them, without a fit: rows of words, each right or wrong as a test wants it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_audiorl.callbacks.report_page import run_page
from lightning_audiorl.metrics import UtteranceCounts, asr_rates, utterance_counts
from lightning_audiorl.metrics.rows import RECOGNISED, Compared, RowResult, recognition_parts
from lightning_audiorl.reports.row_files import plain_rows, rows_path, write_rows
from lightning_audiorl.reports.runs import Run
from lightning_audiorl.reports.sounds import Sounds
from lightning_audiorl.types import Hypothesis, Utterance

WORDS = "one two three four"


def plain_report(**changes: Any) -> dict[str, Any]:
    """What ``report.json`` holds of a run in which nothing was evaluated."""
    report: dict[str, Any] = {
        "command": "fit",
        "status": "finished",
        "algorithm": "GRPO",
        "rl_step": 4,
        "num_steps": 4,
        "before": None,
        "after": None,
        "alerts": [],
        "judges": {},
        "recordings": [],
        "time": {"total_s": 61.0, "evaluation_s": 1.0, "phases_s": {}},
        "model": {"start_hash": "abc"},
        "seeds": {"seed": 0},
        "machine": {},
        "versions": {},
        "settings": {},
        "evaluations": [],
        "history": {},
    }
    return report | changes


def result(row_id: str, hypothesis: str, text: str = WORDS, lang: str = "en") -> RowResult:
    """A row that was transcribed; texts are normalised already."""
    row = Utterance(row_id, (), text=text, duration_s=1.0, lang=lang)
    counts = utterance_counts(Hypothesis(row, hypothesis))
    unit = "char" if lang == "zh" else "word"
    compared = Compared(hypothesis, text, hypothesis, unit)  # type: ignore[arg-type]
    return RowResult(row, {RECOGNISED: compared}, recognition_parts([counts]))


def rates(results: Sequence[RowResult]) -> dict[str, float]:
    """The metrics of a set, counted anew from its texts and not from the parts of its rows."""
    sums = [0.0] * len(UtteranceCounts().values())
    for one in results:
        counts = utterance_counts(Hypothesis(one.row, one.texts[RECOGNISED].text))
        sums = [total + value for total, value in zip(sums, counts.values(), strict=True)]
    return asr_rates(UtteranceCounts(*sums))


def with_errors(num_wrong: Sequence[int]) -> list[RowResult]:
    """A row for each number: so many of its four words are others."""
    results = []
    for place, wrong in enumerate(num_wrong):
        words = WORDS.split()
        results.append(result(f"row-{place:03d}", " ".join(["wrong"] * wrong + words[wrong:])))
    return results


def make_run(
    folder: Path,
    before: Mapping[str, Sequence[RowResult]],
    after: Mapping[str, Sequence[RowResult]],
    **changes: Any,
) -> Path:
    """The folder of a run with two evaluations."""
    stages = {}
    for stage, rl_step, rows in (("before", 0, before), ("after", 4, after)):
        results = {name: rates(of_set) for name, of_set in rows.items()}
        stages[stage] = {"rl_step": rl_step, "kind": "val", "results": results}
        write_rows(plain_rows(rows), rows_path(folder / "report", "report", stage), rl_step)

    report = plain_report(**stages, evaluations=list(stages.values())) | changes
    text = json.dumps(report).replace("NaN", "null")
    (folder / "report" / "report.json").write_text(text)
    return folder


def page_of(recordings: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """The page of a run of which only recordings are left."""
    run = Run(folder, plain_report(recordings=list(recordings)))
    return run_page(run, Sounds(), "title")
