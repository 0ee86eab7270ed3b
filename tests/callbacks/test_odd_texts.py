"""Texts and names of any kind on their way to files: none ends a run, is read as HTML, or overwrites another."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_audiorl.callbacks.outputs import markdown_table
from lightning_audiorl.callbacks.recordings import Recordings
from lightning_audiorl.callbacks.report import report_text
from lightning_audiorl.callbacks.samples import hypothesis_table
from lightning_audiorl.types import Hypothesis, Speech, Utterance

HTML = "<script>alert(1)</script><img src=x onerror=alert(1)> | &amp;"
HALF = "one \ud83d"


def hypothesis(text: str, **fields: Any) -> Hypothesis:
    return Hypothesis(Utterance("a", (), text, 1.0), text, num_tokens=3, **fields)


@pytest.mark.fault(
    "Settings and messages",
    "a hypothesis, a reference or an error message with HTML in it",
    "report.md and TensorBoard show it as it is written; nothing is read as HTML",
)
def test_html_stays_text() -> None:
    table = hypothesis_table([[hypothesis(HTML)]])
    assert "<" not in table
    assert "&lt;script&gt;alert(1)" in table
    assert r"\| &amp;amp;" in table
    assert "<" not in markdown_table([HTML], [[HTML]])

    report: dict[str, Any] = {
        "command": "fit",
        "algorithm": "SFT",
        "status": f"interrupted by ValueError: {HTML}",
        "rl_step": 1,
        "num_steps": 2,
        "before": None,
        "after": None,
        "alerts": [{"rl_step": 1, "text": HTML}],
        "judges": {"judge": HTML},
        "recordings": [],
        "time": {"total_s": 1.0, "evaluation_s": 0.0, "phases_s": {}},
        "model": {"folder": HTML},
        "seeds": {},
        "machine": {},
        "versions": {},
        "settings": None,
    }
    text = report_text(report, {})
    assert "<" not in text
    assert text.count("&lt;script&gt;") == 4


@pytest.mark.fault(
    "Speech",
    'evaluation sets "a/b" and "a_b", or "..", whose names make the same folder or one above',
    "each has a folder of its own below the run's",
)
def test_sets_share_no_files(tmp_path: Path) -> None:
    names = ["a/b", "a_b", "A b", "..", "", "/etc"]
    recordings = Recordings(1)
    groups: dict[str, Any] = {}
    for number, name in enumerate(names):
        speech = Speech(torch.full((100 + number,), 0.1), 8000, torch.tensor([1]))
        groups[name] = [[hypothesis("one", speech=speech)]]
    folder = tmp_path / "audio"
    recordings.keep(groups, folder, "before", rl_step=0)

    files = {record["set"]: (folder / record["wav"]).resolve() for record in recordings.records}
    assert list(files) == names
    assert len({str(path).casefold() for path in files.values()}) == len(names)
    for path in files.values():
        assert path.is_file()
        assert folder.resolve() in path.parents


@pytest.mark.fault(
    "Settings and messages",
    'a set "a" with a decoding "b" beside a set "a/b": both have the metrics val/a/b/...',
    "refused before the evaluation, with both names",
)
def test_metrics_of_two_sets_have_two_names() -> None:
    from lightning_audiorl.engine.evaluator import EvalDecoding, Evaluator

    evaluation: Any = SimpleNamespace(new=lambda: None, reference_logprob=False)
    decodings = {"greedy": EvalDecoding(), "b": EvalDecoding()}
    evaluator = Evaluator(decodings, evaluation, panel=None)  # type: ignore[arg-type]
    evaluator.begin(["a", "b"])
    with pytest.raises(ValueError, match=r"set 'a' under the decoding 'b' .* rename one"):
        evaluator.begin(["a", "a/b"])


@pytest.mark.fault(
    "Settings and messages",
    "half of a surrogate pair in an id, a reference or a hypothesis of rows that are made by a program",
    "report, predictions and manifests are written; a draw is keyed by it",
)
def test_half_an_emoji_ends_no_run(tmp_path: Path) -> None:
    from lightning_audiorl.callbacks.report import write_report
    from lightning_audiorl.data import ManifestError, ManifestRows, write_manifest
    from lightning_audiorl.data.hypotheses.reader import HypothesisFiles, row_fingerprint
    from lightning_audiorl.data.hypotheses.schema import Predicted, read_hypotheses
    from lightning_audiorl.data.hypotheses.writer import HypothesisParts, survey_rows
    from lightning_audiorl.ops.randomness import keyed_uniform

    row = Utterance(HALF, (), HALF, 1.0, keywords=(HALF,))
    assert survey_rows([row]).num_rows == 1
    assert 0 <= float(keyed_uniform(1, HALF)) < 1

    parts = HypothesisParts(tmp_path / "out.jsonl", {}, ["base"], 1)
    parts.begin()
    line = Predicted(HALF, "base", HALF, row_fingerprint(row), (), 0.5)
    parts.append(0, 0, [(0, line)])
    parts.join()
    assert list(read_hypotheses(tmp_path / "out.jsonl")) == [line]
    assert HypothesisFiles([str(tmp_path / "out.jsonl")]).of(row) == (line,)

    write_manifest([row], tmp_path / "rows.jsonl")
    with pytest.raises(ManifestError, match=r"rows.jsonl, line 1, field `id`: holds half"):
        ManifestRows(str(tmp_path / "rows.jsonl"))

    report: dict[str, Any] = {
        "command": "fit",
        "algorithm": "SFT",
        "status": f"interrupted by ValueError: {HALF}",
        "rl_step": 1,
        "num_steps": 2,
        "before": None,
        "after": None,
        "alerts": [],
        "judges": {},
        "recordings": [],
        "time": {"total_s": 1.0, "evaluation_s": 0.0, "phases_s": {}},
        "model": {},
        "seeds": {},
        "machine": {},
        "versions": {},
        "settings": None,
        "evaluations": [],
        "history": {},
    }
    write_report(report, tmp_path / "report")
    assert r"one \ud83d" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
