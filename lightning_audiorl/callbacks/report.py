"""What came out of a run, in one folder: report.html, report.json, report.md and plots; of speech also wav files."""

from __future__ import annotations

import json
import logging
import math
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lightning_audiorl.callbacks import environment, plots
from lightning_audiorl.callbacks.early_stop import EarlyStop
from lightning_audiorl.callbacks.hacking import HackingWatch
from lightning_audiorl.callbacks.history import History
from lightning_audiorl.callbacks.metric_table import metric_note, metric_table
from lightning_audiorl.callbacks.outputs import WriteError, plain_markdown, run_folder, writing
from lightning_audiorl.callbacks.recordings import Recordings, judges_of, recordings_markdown
from lightning_audiorl.callbacks.report_page import run_page
from lightning_audiorl.callbacks.report_rows import clip_loader, gathered_rows
from lightning_audiorl.callbacks.view import (
    Results,
    RunView,
    nothing_learnt,
    row_results,
    run_view,
    said_once,
    validations,
)
from lightning_audiorl.checks import check_count
from lightning_audiorl.reports.comparison import SetComparison
from lightning_audiorl.reports.row_files import Rows, plain_rows, rows_path, write_rows
from lightning_audiorl.reports.runs import (
    BEFORE,
    Run,
    comparison_records,
    read_control,
    stored_rows,
    verdicts,
)
from lightning_audiorl.reports.sounds import Audio, Sounds, write_page

_log = logging.getLogger(__name__)
_NAMES = {"fit": "report", "validate": "validate", "test": "test"}


def plain(value: Any) -> Any:
    """``value`` as strict JSON can hold it: NaN and infinity become null, what is unknown its text.

    Example:
        >>> plain({"wer": float("nan"), "path": Path("report")})
        {'wer': None, 'path': 'report'}
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min"


class RunReport(Callback):
    """Writes ``report.html``, ``report.json``, ``report.md`` and plots at the end of a fit, also of an interrupted one.

    The page is one file that needs nothing else: what improved and what did not, with paired bootstrap intervals, every
    metric, texts with their errors in colour, players and curves. What each evaluation said of each row is beside it,
    in ``report.before.jsonl`` and ``report.after.jsonl``. A validation writes ``validate.html``, ``validate.json`` and
    ``validate.md``, a test ``test.html`` and so on; the command line gives them a folder of their own. The table of
    metrics and the verdict are printed too.

    Of a policy that speaks, ``<default_root_dir>/audio`` holds the first texts of each set as wav files with their mel
    spectrograms, as they were spoken before the first step and after the last; the page plays them beside what the
    judges heard.

    Args:
        enabled: False writes and prints nothing.
        dirpath: default ``<default_root_dir>/report``.
        num_spoken: texts of each set that are kept as wav files.
        audio: ``inside`` the page, in a ``zip`` file with the page, or ``none``.
        num_rows: of each set whose texts are shown because they got better, as many that got worse, and as many that
            are the worst.
        control: folder of a run of the same evaluation sets, such as supervised training for as many steps, which the
            verdict compares this one with.

    Raises:
        ValueError: for a negative number, or a place for audio that is none.
    """

    def __init__(
        self,
        enabled: bool = True,
        dirpath: str | None = None,
        num_spoken: int = 3,
        audio: Audio = "inside",
        num_rows: int = 5,
        control: str | None = None,
    ) -> None:
        if num_spoken < 0:
            raise ValueError(f"RunReport.num_spoken must not be negative, got {num_spoken}")
        check_count("RunReport.num_rows", num_rows)
        Sounds(audio)
        self.enabled = enabled
        self.dirpath = dirpath
        self.audio: Audio = audio
        self.num_rows = num_rows
        self.control = control
        self._control: Run | None = None
        self.history = History()
        self.recordings = Recordings(num_spoken)
        self._evaluation_start_s = 0.0
        self._memory_table: str | None = None
        self._last_rows: Rows = {}
        #: What the run has achieved, a sentence for each thing it was compared with; known at its end.
        self.verdict: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """What the run has been through, for a report of the whole run after a resume."""
        return {
            **self.history.state_dict(),
            "recordings": self.recordings.records,
            "memory_table": self._memory_table,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the `state_dict` of another process."""
        self.history.load_state_dict(state_dict)
        self.recordings.records = list(state_dict.get("recordings", []))
        self._memory_table = state_dict.get("memory_table")

    # --- hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The clock begins; a control that is none ends the run here, and not after its last step."""
        self.history.start()
        if stage == "fit" and self.enabled and self.control is not None:
            self._control = read_control(Path(self.control))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        *_: Any,
    ) -> None:
        """Keep the metrics of a step."""
        run = run_view(pl_module)
        self.history.append(run.rl_step, run.step_metrics)
        self._memory_table = run.ledger_table

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time the evaluation."""
        self._evaluation_start_s = time.monotonic()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time the test."""
        self._evaluation_start_s = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the recordings of an evaluation; a validation without training is reported at once."""
        run = run_view(pl_module)
        self.history.evaluation_s += time.monotonic() - self._evaluation_start_s
        if trainer.state.fn == "validate":
            self._record(trainer, run, "validate")
            self._finish(trainer, run, "finished")
        else:
            is_first = len(validations(run)) == 1
            self._record(trainer, run, "before" if is_first else "after")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report a test."""
        run = run_view(pl_module)
        self.history.evaluation_s += time.monotonic() - self._evaluation_start_s
        self._record(trainer, run, "test")
        self._finish(trainer, run, "finished")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report a run."""
        run = run_view(pl_module)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        reasons = [c.reason for c in callbacks if isinstance(c, EarlyStop) and c.reason is not None]
        if reasons:
            status = f"stopped early; {reasons[0]}"
        elif run.rl_step < run.num_steps:
            status = (
                f"ended at RL step {run.rl_step} of {run.num_steps}, by a limit of its time or data"
            )
        else:
            status = "finished"
        verdict = nothing_learnt(pl_module)
        if verdict is not None:
            status = f"{status}, but {verdict}"
        self._finish(trainer, run, status)

    def on_exception(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        exception: BaseException,
    ) -> None:
        """Report what there is of an interrupted run."""
        run = run_view(pl_module)
        if run.evaluations or self.history.steps:
            # Some exceptions, such as KeyboardInterrupt, have no message.
            reason = f"{type(exception).__name__}: {exception}".rstrip(": ")
            try:
                self._finish(trainer, run, f"interrupted by {reason}")
            except WriteError as error:
                # A full disk ends a run and refuses its report as well: the first is what matters.
                _log.warning("no report of the interrupted run: %s", error)

    # --- the report

    def _record(self, trainer: Trainer, run: RunView, stage: str) -> None:
        """Keep what the evaluation at hand has said."""
        if not self.enabled:
            return
        # Every rank has a share of the rows.
        rows = gathered_rows(trainer, row_results(run))
        if not trainer.is_global_zero:
            return

        folder = run_folder(trainer, None, "audio")
        with writing("what was spoken", folder):
            self.recordings.keep(run.last_hypotheses, folder, stage, run.rl_step)

        # A validation or a test has one evaluation.
        part = stage if _command(trainer) == "fit" else "rows"
        path = rows_path(self._folder(trainer), _NAMES[_command(trainer)], part)
        with writing("the rows of an evaluation", path):
            write_rows(plain_rows(rows), path, run.rl_step)
        self._last_rows = rows

    def _folder(self, trainer: Trainer) -> Path:
        return run_folder(trainer, self.dirpath, "report")

    def _finish(self, trainer: Trainer, run: RunView, status: str) -> None:
        if not self.enabled or not trainer.is_global_zero:
            return
        report = self.collect(trainer, run, status)
        folder = self._folder(trainer)
        is_fit = report["command"] == "fit"
        rows = stored_rows(folder, report) if is_fit else {BEFORE: self._last_rows}
        finished = Run(folder, report, rows)
        said = [one.sentence for one in verdicts(finished, self._control)]
        self.verdict = said
        report |= {"verdict": said, "comparison": comparison_records(finished)}

        with writing("the report", folder):
            table = write_report(report, folder, finished.change)
            where = self._write_page(trainer, finished, table)
        if table:
            note = textwrap.fill(metric_note(report["before"]["results"]), 110)
            sentences = "".join(f"\n{textwrap.fill(one, 110)}\n" for one in said)
            print(f"\n{table}\n\n{note}\n{sentences}{where}")

    def _write_page(self, trainer: Trainer, finished: Run, table: str) -> Path:
        """The page, or one archive with its sound where that is wanted."""
        name = _NAMES[finished.report["command"]]
        sounds = Sounds(self.audio)
        page = run_page(
            finished,
            sounds,
            title=report_title(finished.report),
            table=table,
            control=self._control,
            load_clip=clip_loader(trainer),
            num_rows=self.num_rows,
        )
        return write_page(finished.folder, name, page, sounds)

    def collect(self, trainer: Trainer, run: RunView, status: str) -> dict[str, Any]:
        """Everything the report says, as plain data (NaN still a float)."""
        command = _command(trainer)
        kind = "test" if command == "test" else "val"
        evaluations = [one for one in run.evaluations if one["kind"] == kind]
        if command != "fit":
            # A validation or a test reports itself, not what a checkpoint remembers of its run.
            evaluations = evaluations[-1:]

        stages = ("before", "after") if command == "fit" else (command,)
        audio_folder = run_folder(trainer, None, "audio")
        recordings = self.recordings.of(stages, audio_folder, self._folder(trainer))

        time_spent = {
            "total_s": self.history.total_s,
            "evaluation_s": self.history.evaluation_s,
            "phases_s": self.history.phases_s,
        }
        history = (
            {"rl_step": self.history.steps, **self.history.columns} if command == "fit" else {}
        )

        return {
            "command": command,
            "status": status,
            "algorithm": type(run).__name__,
            "rl_step": run.rl_step,
            "num_steps": run.num_steps,
            "before": evaluations[0] if evaluations else None,
            "after": evaluations[-1] if len(evaluations) > 1 else None,
            "alerts": _alerts(trainer),
            "warnings": said_once(run),
            "judges": judges_of(run.evaluation),
            "recordings": recordings,
            "time": time_spent,
            # Of the last step, which another process may have made.
            "memory_table": run.ledger_table or self._memory_table,
            # What someone needs to repeat the run.
            "model": environment.model_facts(run),
            "seeds": environment.seeds(run),
            "machine": environment.machine(trainer),
            "versions": environment.versions(),
            "settings": environment.settings(trainer),
            # Every number that was measured.
            "evaluations": evaluations,
            "history": history,
        }


def _command(trainer: Trainer) -> str:
    """Such as "fit"."""
    return str(trainer.state.fn.value) if trainer.state.fn is not None else "fit"


def _alerts(trainer: Trainer) -> list[dict[str, Any]]:
    """What every hacking watch of the run has said."""
    alerts: list[dict[str, Any]] = []
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, HackingWatch):
            alerts += callback.alerts
    return alerts


def _labels(report: dict[str, Any]) -> tuple[str, str]:
    after = report["after"]
    first = f"step {report['before']['rl_step']}"
    last = f"step {after['rl_step']}" if after else ""
    return first, last


def _results(report: dict[str, Any]) -> tuple[Results, Results | None]:
    """The metrics before and after, by set."""
    after = report["after"]
    return report["before"]["results"], after["results"] if after else None


def report_title(report: Mapping[str, Any]) -> str:
    """Algorithm, command and progress of a run.

    Args:
        report: of `RunReport.collect`.

    Example:
        >>> report_title({"algorithm": "SFT", "command": "fit", "rl_step": 1, "num_steps": 2})
        'SFT, fit, RL step 1 of 2'
    """
    progress = f"RL step {report['rl_step']} of {report['num_steps']}"
    return f"{report['algorithm']}, {report['command']}, {progress}"


def report_table(report: dict[str, Any]) -> str:
    """The metrics of every set, before and after; empty when nothing was evaluated."""
    if report["before"] is None:
        return ""
    before, after = _results(report)
    return metric_table(before, after, _labels(report))


def _facts(facts: dict[str, Any]) -> str:
    return "\n".join(f"- {key}: {plain_markdown(str(value))}" for key, value in facts.items())


def report_text(report: dict[str, Any], images: dict[str, str]) -> str:
    """The report in Markdown.

    Args:
        report: of `RunReport.collect`.
        images: file names, relative to the report, by title.
    """
    parts = [f"# {report_title(report)}"]
    parts.append(f"Status: {plain_markdown(report['status'])}.")
    parts += [plain_markdown(one) for one in report.get("verdict", [])]
    parts += _time_lines(report["time"])

    table = report_table(report)
    if table:
        parts.append("## Metrics")
        parts.append(metric_note(report["before"]["results"]))
        parts.append(f"```\n{table}\n```")
    for title, name in images.items():
        parts.append(f"![{title}]({name})")

    judges = report["judges"]
    if judges:
        parts.append("## Judges")
        parts.append(_facts({role.replace("_", " "): name for role, name in judges.items()}))
    if report["recordings"]:
        parts.append("## What is heard")
        parts.append(recordings_markdown(report["recordings"], judges))

    if report.get("memory_table"):
        parts.append("## Memory by phase")
        parts.append("On the device, in the last RL step.")
        parts.append(report["memory_table"])
    for title, key in (("Warnings", "warnings"), ("Hacking watch", "alerts")):
        said = report.get(key, [])
        if said:
            parts.append(f"## {title}")
            parts.append(
                "\n".join(
                    f"- RL step {one['rl_step']}: {plain_markdown(one['text'])}" for one in said
                )
            )

    # What someone needs to repeat the run.
    for title in ("model", "seeds", "machine", "versions"):
        parts.append(f"## {title.capitalize()}")
        parts.append(_facts(report[title]))
    if report["settings"]:
        settings = json.dumps(plain(report["settings"]), indent=1)
        parts.append("## Settings")
        parts.append(f"```json\n{settings}\n```")
    return "\n\n".join(parts) + "\n"


def _time_lines(clock: dict[str, Any]) -> list[str]:
    total = _duration(clock["total_s"])
    evaluation = _duration(clock["evaluation_s"])
    lines = [f"Time: {total}, of it evaluation {evaluation}."]
    if clock["phases_s"]:
        phases = [f"{name} {_duration(s)}" for name, s in clock["phases_s"].items()]
        lines.append(f"Training by phase: {' | '.join(phases)}.")
    return lines


def write_report(report: dict[str, Any], folder: Path, sets: Sequence[SetComparison] = ()) -> str:
    """Write the files of a report into ``folder``, but for the page; returns the table of metrics.

    Args:
        report: of `RunReport.collect`.
        folder: is made where it is missing.
        sets: what has changed, with the intervals that bars show.
    """
    name = _NAMES.get(report["command"], report["command"])
    folder.mkdir(parents=True, exist_ok=True)
    images = _write_plots(report, folder, name, sets)

    data = json.dumps(plain(report), indent=1, allow_nan=False)
    _write(folder / f"{name}.json", data + "\n")
    _write(folder / f"{name}.md", report_text(report, images))
    return report_table(report)


def _write(path: Path, text: str) -> None:
    """Whatever a model, a judge or a manifest has put into a text, the report is written."""
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _write_plots(
    report: dict[str, Any], folder: Path, name: str, sets: Sequence[SetComparison]
) -> dict[str, str]:
    """Draw what there is to draw; returns file names by title."""
    images: dict[str, str] = {}

    if report["before"] is not None:
        before, after = _results(report)
        bars = folder / f"{name}_figures.png"
        known = {one.name: one.differences for one in sets}
        if plots.plot_metrics(before, after, _labels(report), bars, known):
            images["metrics"] = bars.name

    judges = folder / f"{name}_judges.png"
    if plots.plot_judges(report["evaluations"], judges):
        images["judges that reward, and judges held out"] = judges.name

    steps = report["history"].get("rl_step", [])
    columns = {key: column for key, column in report["history"].items() if key != "rl_step"}
    curves = folder / f"{name}_curves.png"
    if plots.plot_curves(steps, columns, curves):
        images["training curves"] = curves.name

    seconds = folder / f"{name}_seconds.png"
    if plots.plot_seconds(steps, columns, seconds):
        images["seconds per phase"] = seconds.name
    return images
