"""``audiorl report``: a run's page again, runs side by side, and folders of which neither can be made."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_audiorl.commands.report import report
from lightning_audiorl.metrics.rows import RowResult
from lightning_audiorl.reports.row_files import ReportError
from lightning_audiorl.reports.tables import latex_escaped
from lightning_audiorl.types import Segment
from tests.reports.folders import make_run, plain_report, with_errors

START = with_errors([3, 2, 1, 2] * 10)


def run_of(
    folder: Path, algorithm: str, seed: int, end: Sequence[RowResult], name: str = "dev"
) -> str:
    seeds = {"seed": seed}
    path = folder / f"{algorithm.lower()}-{seed}"
    return str(make_run(path, {name: START}, {name: end}, algorithm=algorithm, seeds=seeds))


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two seeds of supervised training, two of GRPO."""
    ends = {
        ("SFT", 0): [2, 2, 1, 2],
        ("SFT", 1): [2, 1, 1, 2],
        ("GRPO", 0): [1, 1, 1, 1],
        ("GRPO", 1): [0, 1, 1, 2],
    }
    folders = []
    for (algorithm, seed), wrong in ends.items():
        folders.append(run_of(tmp_path, algorithm, seed, with_errors(wrong * 10)))
    return folders


def test_runs_side_by_side(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    report(runs, out=str(out))
    shown = capsys.readouterr().out

    with (out / "compare.csv").open() as file:
        lines = {(line["group"], line["metric"]): line for line in csv.DictReader(file)}
    sft = lines["SFT", "wer"]
    grpo = lines["GRPO", "wer"]
    # By hand: of 160 words a run has 80 wrong at its start; 70 and 60 with SFT, 40 and 40 with GRPO.
    assert float(sft["start"]) == float(grpo["start"]) == 0.5
    assert float(sft["end"]) == pytest.approx((70 + 60) / 320)
    assert float(grpo["end"]) == pytest.approx(0.25)
    assert float(sft["end_std"]) == pytest.approx(0.0442, abs=1e-4)
    assert float(grpo["less_start"]) == pytest.approx(-0.25)
    assert float(grpo["less_control"]) == pytest.approx(0.25 - 130 / 320)
    assert float(grpo["less_control_low"]) < -0.15625 < float(grpo["less_control_high"]) < 0
    assert sft["less_control"] == ""
    assert (grpo["num_seeds"], grpo["num_utterances"], grpo["num_units"]) == ("2", "40", "160")

    # The control stands first.
    assert shown.index("SFT, 2 seeds") < shown.index("GRPO, 2 seeds")
    assert "GRPO, 2 seeds. Against the control (SFT): better: WER of dev 40.6 → 25.0 %" in re.sub(
        r"\s+", " ", shown
    )
    page = (out / "compare.html").read_text()
    assert "seeds 0, 1" in page
    assert page.count('class="dot"') == 4
    table = (out / "compare.tex").read_text()
    assert (
        r"dev (40 utterances, 160 words) & WER & GRPO, 2 seeds & 50.0 \% & 25.0 \% $\pm$ 0.0"
        in table
    )


def test_groups_have_the_names_they_are_given(runs: list[str], tmp_path: Path) -> None:
    named = [f"plain={runs[2]}", f"other={runs[3]}"]
    report(named, out=str(tmp_path / "out"), control="other")
    text = (tmp_path / "out" / "compare.csv").read_text()
    assert [line.split(",")[2] for line in text.splitlines()[1:3]] == ["other", "plain"]
    with pytest.raises(ReportError, match=r"--control base: .* among plain, other"):
        report(named, control="base")


def test_the_page_of_one_run_is_made_again(
    runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(runs[2])
    report([str(folder)], control=runs[0], audio="none")
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "Against the start (step 0): better: WER of dev 50.0 → 25.0 %" in shown
    assert "Against the control (SFT, seed 0): better: WER of dev 43.8 → 25.0 %" in shown
    page = (folder / "report" / "report.html").read_text()
    assert "Against the control (SFT, seed 0): better in 1 of 1, worse in none" in page


def test_audio_that_is_gone_leaves_a_page_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = (Segment(str(tmp_path / "gone.wav"), 1.0),)
    rows = [replace(one, row=replace(one.row, segments=gone)) for one in with_errors([1] * 12)]
    report([str(make_run(tmp_path / "run", {"dev": rows}, {"dev": rows}))])
    assert caplog.text.count("no player for row 'row-000'") == caplog.text.count("no player") == 1
    assert "<audio" not in (tmp_path / "run" / "report" / "report.html").read_text()


@pytest.mark.fault(
    "Settings and messages",
    "`audiorl report` of a folder that is missing, empty, damaged, of an older run or of other evaluation sets",
    "refused in a line: which folder, what it lacks, what to do",
)
def test_folders_without_what_is_to_be_compared(runs: list[str], tmp_path: Path) -> None:
    good = runs[0]
    with pytest.raises(ReportError, match=r"nowhere: there is no such folder"):
        report([good, str(tmp_path / "nowhere")])

    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ReportError, match=r"empty: holds no report of a run .*audiorl fit"):
        report([str(empty)])

    damaged = tmp_path / "damaged"
    (damaged / "report").mkdir(parents=True)
    (damaged / "report" / "report.json").write_text('{"command": "fit", ')
    with pytest.raises(ReportError, match=r"report.json: cannot be read as a report"):
        report([str(damaged)])
    (damaged / "report" / "report.json").write_text(json.dumps(plain_report()))
    with pytest.raises(ReportError, match=r"report.json: holds no evaluation"):
        report([str(damaged)])

    with pytest.raises(ReportError, match=r"a second run of SFT with seed 0, .* base="):
        report([good, good])

    other = run_of(tmp_path / "other", "GRPO", 5, START, name="test")
    with pytest.raises(
        ReportError, match=r"grpo-5: its evaluation set '(dev|test)' has other rows"
    ):
        report([good, other])

    (Path(runs[1]) / "report" / "report.after.jsonl").unlink()
    with pytest.raises(ReportError, match=r"no predictions of the evaluation at RL step 4"):
        report([good, runs[1]])


def test_signs_of_latex_are_printed() -> None:
    assert latex_escaped(r"a_b {50%} \x^2") == r"a\_b \{50\%\} \textbackslash{}x\textasciicircum{}2"
