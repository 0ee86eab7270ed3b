"""The records of experiments/real/runs.py, as its page reads them: small, and with what each figure is counted from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.real.evaluate import counts

Record = dict[str, Any]
"""One run in plain data, see `compact`."""

#: Places of the counts of a row.
SUBSTITUTIONS, DELETIONS, INSERTIONS, REFERENCE, HYPOTHESIS = range(5)
SPEECH_SETS = ("prompts", "long", "fsdd_short", "fsdd_long")
#: Arms and seed whose texts are kept for the table of transcripts.
TEXTS_OF = ("start", "grpo_reference", "sft")
TEXT_SEED = 0


def collect(results: Path, dev: Path | None = None) -> dict[str, Any]:
    """All records of a folder: rows that all runs share, and each run.

    Args:
        results: of the runs that are evaluated on the test sets.
        dev: of runs on the dev sets, by which settings were chosen.

    Raises:
        FileNotFoundError: there is none.
    """
    paths = sorted(results.glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"{results}: no record; run experiments/real/runs.py first")
    records = [json.loads(path.read_text()) for path in paths]

    rows: dict[str, list[Record]] = {}
    for name, found in records[0]["sets"].items():
        wanted = ("id", "kind", "reference", "kind_in_training")
        rows[name] = [{key: row[key] for key in wanted if key in row} for row in found]
    return {
        "made_with": records[-1]["made_with"],
        "rows": rows,
        "runs": [compact(record) for record in records],
        "dev": [_of_dev(path) for path in sorted(dev.glob("*.json"))] if dev else [],
    }


def _of_dev(path: Path) -> Record:
    """A run on the dev sets, in a few numbers."""
    kept = compact(json.loads(path.read_text()))
    silent = kept["nonspeech"]
    return {
        "arm": kept["arm"],
        "seed": kept["seed"],
        "probes": kept["probes"],
        "wer": round(error_rate(kept["sets"]["prompts"]["numbers"]), 5),
        "text": sum(bool(row["text"]) for row in silent),
        "clips": len(silent),
        "kl": kept["kl"],
        "cpu_s": kept["cpu_s"],
    }


def compact(record: Record) -> Record:
    """A run without what the page does not read: counts by row, and texts of a few runs alone."""
    kept: Record = {"arm": record["arm"], "seed": record["seed"], "kl": round(record["kl"], 4)}
    for name in ("cpu_s", "encoding_cpu_s", "evaluation_cpu_s"):
        kept[name] = round(record.get(name, 0.0), 1)
    kept["probes"] = [[step, round(share, 4)] for step, share in record.get("probes", [])]
    kept["steps"] = _steps(record.get("steps", []))
    kept["looks"] = [_look(look) for look in record.get("curve", [])]

    sets = {name: [_recounted(row) for row in rows] for name, rows in record["sets"].items()}
    kept["sets"] = {
        name: {key: [row[key] for row in sets[name]] for key in ("numbers", "plain")}
        for name in SPEECH_SETS
        if name in sets
    }
    kept["nonspeech"] = [_silent(row) for row in sets["nonspeech"]]
    if record["arm"] in TEXTS_OF and record["seed"] == TEXT_SEED:
        kept["texts"] = {
            name: [row["text"] for row in sets[name]] for name in SPEECH_SETS if name in sets
        }
    return kept


def _recounted(row: Record) -> Record:
    """A row with its counts as they are counted now; texts are what a record is about."""
    return row | counts(row["reference"], row["text"], are_digits=row["kind"] == "digits")


def _steps(steps: Iterable[Record]) -> dict[str, list[float | None]]:
    """By metric, a value for each step, None where it has none."""
    found = list(steps)
    names = ("cpu_s", "reward/mean", "not_empty_share", "kl", "loss")
    kept = {}
    for name in names:
        values = [step.get(name) for step in found]
        if any(value is not None for value in values):
            kept[name] = [None if value is None else round(value, 4) for value in values]
    return kept


def _look(look: Record) -> Record:
    """The non-speech rows after a step, and the error rate on the dev prompts."""
    counts = [row["numbers"] for row in look["speech"]]
    return {
        "step": look["step"],
        "p_empty": [round(row["p_empty"], 4) for row in look["rows"]],
        "text": [int(not row["empty"]) for row in look["rows"]],
        "dev_wer": round(error_rate(counts), 5) if counts else None,
    }


def _silent(row: Record) -> Record:
    """A non-speech row: its greedy text, how many of its samples have text, the probability of none."""
    return {
        "text": row["text"].strip(),
        "sampled": sum(bool(text.strip()) for text in row["samples"]),
        "samples": len(row["samples"]),
        "p_empty": round(row["p_empty"], 4),
    }


def error_rate(counts: Iterable[list[int]]) -> float:
    """Errors per word of the references.

    Example:
        >>> error_rate([[1, 0, 0, 3, 3], [0, 0, 1, 1, 2]])
        0.5
    """
    rows = list(counts)
    return sum(sum(row[:REFERENCE]) for row in rows) / sum(row[REFERENCE] for row in rows)


def of(kept: dict[str, Any], arm: str) -> list[Record]:
    """The runs of an arm, by seed."""
    return sorted((run for run in kept["runs"] if run["arm"] == arm), key=lambda run: run["seed"])
