"""The web page of a run: verdict, every metric with its interval, texts with their errors, sound, curves, settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

from lightning_audiorl.callbacks.metric_table import agreement_note, is_speech
from lightning_audiorl.callbacks.report_curves import bars_of_run, curves_of_run
from lightning_audiorl.callbacks.report_samples import LoadClip, heard_rows, sample_rows
from lightning_audiorl.reports.page import render
from lightning_audiorl.reports.runs import AFTER, BEFORE, Run, verdicts
from lightning_audiorl.reports.sounds import Sounds

_NOTE = (
    "Rates are percent of words or utterances; the length ratio is words written per word spoken."
)
_SPEECH_NOTE = (
    "CER is by the judge that rewards, held-out CER by the one that does not; the judge gap is the second less the "
    "first. Similarity is the cosine to the speaker prompt, tokens per unit are speech tokens per word, the missing "
    "stop rate is of samples that the length cap cut, the voiced share of frames, and the duration ratio is seconds "
    "spoken per second expected."
)

_RUN_FACTS = ("model", "seeds", "machine", "versions")


def run_page(
    run: Run,
    sounds: Sounds,
    title: str,
    table: str = "",
    control: Run | None = None,
    load_clip: LoadClip | None = None,
    num_rows: int = 5,
) -> str:
    """The page of a run.

    Args:
        run: fit, validation or test.
        sounds: takes what is played.
        title: of the page.
        table: of metrics, as text, for an evaluation without another to compare it with.
        control: a run to compare it with.
        load_clip: reads the audio of the rows that are shown; None shows none.
        num_rows: of each set that are shown because they got better, as many because they got worse, and as many
            because they are the worst.
    """
    report = run.report
    labels = _labels(run)
    sets = run.change

    heard = heard_rows(run, sounds)
    samples = sample_rows(
        run,
        sounds,
        heard,
        load_clip,
        num_rows,
    )

    return render(
        "report.html",
        title=title,
        status=_status(report),
        verdicts=verdicts(run, control),
        alerts=[*report.get("warnings", []), *report["alerts"]],
        # Numbers.
        is_compared=bool(sets),
        bars=bars_of_run(run, sets, labels),
        sets=sets,
        labels=labels,
        note=_note(report),
        table=table,
        # Rows.
        recordings=list(chain.from_iterable(heard.values())),
        samples=samples,
        num_left_out=sounds.num_left_out,
        # The rest.
        charts=curves_of_run(report),
        facts=_facts(report),
        memory_table=report.get("memory_table") or "",
        settings=_settings(report),
    )


def _status(report: Mapping[str, Any]) -> str:
    total_s = report["time"]["total_s"]
    minutes, seconds = divmod(round(total_s), 60)

    status = report["status"]
    # `capitalize` would make the rest of it small.
    sentence = status[:1].upper() + status[1:]
    return f"{sentence}. It took {minutes} min {seconds} s."


def _labels(run: Run) -> tuple[str, str]:
    """What the two evaluations are called."""
    first = ""
    last = ""
    if run.metrics(BEFORE):
        first = f"step {run.rl_step(BEFORE)}"
    if run.metrics(AFTER):
        last = f"step {run.rl_step(AFTER)}"
    return first, last


def _note(report: Mapping[str, Any]) -> str:
    before = report["before"]
    if before is None:
        return ""
    results = before["results"]
    if not is_speech(results):
        return _NOTE
    return f"{_SPEECH_NOTE}{agreement_note(results)}"


def _settings(report: Mapping[str, Any]) -> str:
    settings = report["settings"]
    if not settings:
        return ""
    return json.dumps(
        settings,
        indent=1,
        default=str,
    )


def _facts(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What someone needs to repeat the run, by heading."""
    facts: dict[str, Mapping[str, Any]] = {}
    for name in _RUN_FACTS:
        if report[name]:
            facts[name.capitalize()] = report[name]

    judges = {}
    for role, name in report["judges"].items():
        judges[role.replace("_", " ")] = name
    if judges:
        facts["Judges"] = judges

    phases = {}
    for name, seconds in report["time"]["phases_s"].items():
        phases[name] = f"{seconds:.1f}"
    if phases:
        facts["Seconds by phase"] = phases
    return facts
