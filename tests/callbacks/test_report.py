from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from lightning import Callback, Trainer

from lightning_audiorl.callbacks import Export, HackingWatch, RLCheckpoint, RunReport
from lightning_audiorl.callbacks.history import History
from lightning_audiorl.engine import RLModule
from lightning_audiorl.reports import ReportError, read_rows
from tests.callbacks import runs

SETS = {"digits", "digits/sampled", "noise", "noise/sampled"}


def read(folder: Path, name: str = "report") -> tuple[dict[str, Any], str]:
    text = (folder / "report" / f"{name}.json").read_text()
    assert "NaN" not in text
    return json.loads(text), (folder / "report" / f"{name}.md").read_text()


@pytest.fixture(scope="module")
def finished(root: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RLModule]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, runs.fit(folder, root, RunReport(), Export(), module=runs.grpo(num_steps=3))


def test_every_set_and_decoding_before_and_after(finished: tuple[Path, RLModule]) -> None:
    folder, module = finished
    report, text = read(folder)
    assert (report["before"]["rl_step"], report["after"]["rl_step"]) == (0, 3)
    assert set(report["before"]["results"]) == set(report["after"]["results"]) == SETS
    assert (
        report["after"]["results"]["digits"]["wer"]
        == module.evaluations[-1]["results"]["digits"]["wer"]
    )
    assert report["before"]["results"]["noise"]["wer"] is None
    assert report["status"] == "finished"
    for name in SETS:
        assert f"\n{name} " in text
    assert text.count("step 3") >= len(SETS)


def test_training_curves_and_time(finished: tuple[Path, RLModule]) -> None:
    report, _ = read(finished[0])
    history = report["history"]
    assert history["rl_step"] == [1, 2, 3]
    for name in (
        "reward/mean",
        "reward/accuracy/mean",
        "kl",
        "entropy",
        "length/mean",
        "seconds/rollout",
    ):
        assert len(history[name]) == 3, name
    assert history["kl"][0] == 0.0
    phases = report["time"]["phases_s"]
    assert set(phases) == {"encode", "rollout", "reward", "reference", "update"}
    assert phases["update"] == pytest.approx(sum(history["seconds/update"]))
    assert report["time"]["total_s"] > report["time"]["evaluation_s"] + sum(phases.values())


def test_what_is_needed_to_repeat_it(finished: tuple[Path, RLModule]) -> None:
    report, _ = read(finished[0])
    assert report["seeds"]["seed"] == 0
    assert {"torch", "lightning", "transformers", "lightning_audiorl", "python"} <= set(
        report["versions"]
    )
    assert report["machine"]["device"] == "cpu"
    assert report["machine"]["cpus"] >= 1
    assert report["model"]["trainable"] <= report["model"]["parameters"]
    assert report["model"]["start"]["source"]["width"] == 32


def test_rows_of_both_evaluations_add_up_to_their_metrics(finished: tuple[Path, RLModule]) -> None:
    folder, _ = finished
    report, _ = read(folder)
    for stage in ("before", "after"):
        rows = read_rows(folder / "report" / f"report.{stage}.jsonl", report[stage]["rl_step"])
        assert {name: len(of_set) for name, of_set in rows.items()} == {"digits": 3, "noise": 2}
        for name, of_set in rows.items():
            results = report[stage]["results"][name]
            names = {metric for one in of_set for metric in one.parts}
            assert {
                "wer",
                "cer",
                "keyword_f1",
                "hallucination_rate",
                "nonspeech_text_rate",
            } <= names
            for metric in names:
                above = sum(one.parts[metric][0] for one in of_set)
                below = sum(one.parts[metric][1] for one in of_set)
                ratio = above / below if below else None
                assert results[metric] == pytest.approx(ratio, abs=1e-6), (name, metric)


def test_the_page_and_the_verdict(finished: tuple[Path, RLModule]) -> None:
    folder, _ = finished
    report, text = read(folder)
    page = (folder / "report" / "report.html").read_text()
    (sentence,) = report["verdict"]
    # Three rows are too few for an interval, and none is made up.
    assert "change without an interval: WER of digits" in sentence
    assert "3 utterances are too few for an interval" in page
    assert sentence.replace("→", "->") in text.replace("→", "->")
    assert "digits/sampled" in page
    assert page.count("<audio controls") >= 1

    records = {(one["set"], one["metric"]): one for one in report["comparison"]}
    wer = records["digits", "wer"]
    results = [report[stage]["results"]["digits"]["wer"] for stage in ("before", "after")]
    assert [wer["before"], wer["after"]] == results
    assert wer["difference"] == pytest.approx(results[1] - results[0])
    assert (wer["low"], wer["judgement"]) == (None, "unknown")


def test_a_control_is_looked_at_before_the_first_step(
    finished: tuple[Path, RLModule], root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ReportError, match="holds no report of a run"):
        runs.fit(tmp_path, root, RunReport(control=str(tmp_path)))
    assert not (tmp_path / "report").exists()

    control = RunReport(control=str(finished[0]), audio="zip", num_rows=1)
    runs.fit(tmp_path, root, control, module=runs.sft(num_steps=1))
    shown = " ".join(capsys.readouterr().out.split())
    assert "Against the start (step 0):" in shown
    assert "Against the control (GRPO, seed 0):" in shown
    assert zipfile.is_zipfile(tmp_path / "report" / "report.zip")


def test_plots_are_png_files_that_the_text_names(finished: tuple[Path, RLModule]) -> None:
    folder, _ = finished
    _, text = read(folder)
    plots = sorted(path.name for path in (folder / "report").glob("*.png"))
    assert plots == ["report_curves.png", "report_figures.png", "report_seconds.png"]
    for name in plots:
        assert (folder / "report" / name).read_bytes().startswith(b"\x89PNG\r\n")
        assert f"]({name})" in text


def test_validate_and_test_write_beside_the_report_of_the_fit(
    finished: tuple[Path, RLModule], root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, module = finished
    before = (folder / "report" / "report.json").read_text()
    trainer = runs.trainer(folder, [RunReport()])
    capsys.readouterr()
    trainer.validate(module, runs.data(root), verbose=False)
    shown = capsys.readouterr().out
    assert shown.count("WER") == 1
    assert "digits/sampled" in shown
    trainer.test(module, runs.data(root), verbose=False)
    report, _ = read(folder, "validate")
    assert (set(report["before"]["results"]), report["after"], report["history"]) == (
        SETS,
        None,
        {},
    )
    assert set(read(folder, "test")[0]["before"]["results"]) == {"digits", "digits/sampled"}
    assert (folder / "report" / "report.json").read_text() == before


class StopAfter(Callback):
    def __init__(self, rl_step: int) -> None:
        self.rl_step = rl_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.rl_step == self.rl_step:
            raise RuntimeError("the disk is full")


def test_an_interrupted_run_reports_what_there_is(root: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the disk is full"):
        runs.fit(tmp_path, root, RunReport(), StopAfter(2))
    report, text = read(tmp_path)
    assert report["status"] == "interrupted by RuntimeError: the disk is full"
    assert report["history"]["rl_step"] == [1, 2]
    assert (report["before"]["rl_step"], report["after"]) == (0, None)
    assert report["status"] in text


def test_a_run_that_fails_before_anything_happened_writes_nothing(
    root: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="needs an RLCheckpoint"):
        runs.fit(tmp_path, root, RunReport(), Export(best=True), RLCheckpoint())
    assert not (tmp_path / "report").exists()


def test_alerts_stand_in_the_report(root: str, tmp_path: Path) -> None:
    watch = HackingWatch()
    watch.alerts.append({"rl_step": 1, "text": "reward rose while val/digits/wer went up"})
    runs.fit(tmp_path, root, watch, RunReport(), module=runs.sft(num_steps=1))
    report, text = read(tmp_path)
    assert report["alerts"] == watch.alerts
    assert "## Hacking watch" in text
    assert set(report["time"]["phases_s"]) == {"encode", "update"}


def test_history_fills_gaps_with_nan_and_survives_a_checkpoint() -> None:
    history = History()
    history.append(1, {"a": 1.0, "seconds/update": 2.0})
    history.append(2, {"a": 2.0, "b": 3.0})
    again = History()
    state = history.state_dict()
    again.load_state_dict(json.loads(json.dumps(state)))
    again.append(3, {"seconds/update": 0.5})
    assert again.steps == [1, 2, 3]
    assert [str(x) for x in again.columns["b"]] == ["nan", "3.0", "nan"]
    assert again.phases_s == {"update": 2.5}
    assert again.total_s >= state["total_s"]
    assert history.steps == [1, 2]
