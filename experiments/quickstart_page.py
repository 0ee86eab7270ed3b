"""docs/quickstart.md: what experiments/quickstart_seeds.py has measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]
"""Of a seed, see `experiments.quickstart_seeds.record`."""

NUM_SEEDS = 5

HEAD = """# Quickstarts over seeds

`make quickstart` and `make quickstart-tts` with other seeds, each beside a control: the same start, finetuned by
supervision (SFT) on the same rows for at least as many CPU seconds. Metric, start and control were written down before
the seeds ran, in the head of `experiments/quickstart_seeds.py`; what was changed after a first look is said below.

Intervals are paired bootstraps over the utterances of the set (95 %), as the report of a run has them: what other
utterances of this kind would do. The seeds say what other runs would do."""


@dataclass(frozen=True)
class Section:
    """What is said of a quickstart.

    Args:
        title: of the section.
        command: that makes a run.
        about: the start, the rows, the control.
        headline: set and metric by which it is judged.
        words: the metric in words.
        others: further sets and metrics, with their words.
    """

    title: str
    command: str
    about: str
    headline: tuple[str, str]
    words: str
    others: Sequence[tuple[str, str, str]]


SECTIONS = {
    "tts": Section(
        "Synthesis",
        "make quickstart-tts",
        "The start (0.9 M parameters) speaks digits that a recogniser often misunderstands. 80 steps of GRPO with 8 "
        "texts and 8 samples each, rewarded by one recogniser and judged by another. RL has texts alone; the control "
        "has 30 recordings of each of these texts besides, joined of single digits of the Free Spoken Digit "
        "Dataset.\n\n"
        "What was tried before: 40 steps, seed 0, showed nothing beyond chance on 100 texts (33.0 to 26.9 %, interval "
        "of the difference -12.5 to +0.9), so the steps went back to 80, the test has 400 texts, and seed 0 is left "
        "out. A control with one recording of each text learnt them by heart (seed 1: 37.0 to 42.8 %).",
        ("test", "held_out_cer"),
        "character errors, held-out judge",
        (("test", "cer", "character errors, rewarding judge"),),
    ),
    "asr": Section(
        "Recognition",
        "make quickstart",
        "The start (1.8 M parameters, trained on short sentences of espeak-ng) writes text on noise and gets lost in "
        "long audio. 30 steps of GRPO with 16 rows and 8 samples each, a quarter of the rows without speech. The "
        "control learns from the same mix, with the same batch and optimiser.",
        ("nonspeech", "nonspeech_text_rate"),
        "text on non-speech",
        (
            ("short", "wer", "WER, short"),
            ("medium", "wer", "WER, medium"),
            ("long", "wer", "WER, long"),
        ),
    ),
}


def page(records: Sequence[Record]) -> str:
    """The page.

    Args:
        records: of all seeds of all quickstarts.
    """
    parts = [HEAD]
    for name, section in SECTIONS.items():
        found = sorted(
            (one for one in records if one["quickstart"] == name), key=lambda one: one["seed"]
        )
        if found:
            parts += [f"## {section.title}", section.about, reading(section, found)]
            parts += [table(section, found), further(section, found), costs(section, found)]
    parts.append(foot(records))
    return "\n\n".join(parts) + "\n"


def reading(section: Section, records: Sequence[Record]) -> str:
    """What the table says, in words."""
    start = [found(one, "rl_to_start", *section.headline) for one in records]
    other = [found(one, "control_to_start", *section.headline) for one in records]
    control = [found(one, "rl_to_control", *section.headline) for one in records]

    num = len(records)
    wins = sum(one["after"] < one["before"] for one in control)
    losses = sum(one["after"] > one["before"] for one in control)
    better = count(control, "better")
    worse = count(control, "worse")

    said = [
        f"**Headline: {section.words}, lower is better.** RL is better than the start beyond chance in "
        f"{count(start, 'better')} of {num} seeds, the control in {count(other, 'better')}.",
        f"RL is lower than the control in {wins} of {num} and higher in {losses}; beyond chance better in {better}, "
        f"worse in {worse}.",
    ]

    less = [100 * (one["after"] - one["before"]) for one in control]
    if num > 1:
        said.append(
            f"The difference to the control is {statistics.mean(less):+.1f} ± {statistics.stdev(less):.1f} points."
        )

    if not better:
        said.append("**In no seed does RL exceed its control beyond chance.**")
    if num < NUM_SEEDS:
        said.append(f"{num} of {NUM_SEEDS} seeds have run.")
    return " ".join(said)


def count(differences: Iterable[Record], judgement: str) -> int:
    """How many are judged so."""
    return sum(one["judgement"] == judgement for one in differences)


def found(record: Record, between: str, set_name: str, metric: str) -> Record:
    """The one difference of a set and metric.

    Args:
        record: of a seed.
        between: such as ``rl_to_control``.
        set_name: of the set.
        metric: its name.
    """
    [one] = [one for one in record[between] if one["set"] == set_name and one["metric"] == metric]
    difference: Record = one
    return difference


def table(section: Section, records: Sequence[Record]) -> str:
    """The headline metric of each seed."""
    lines = [
        f"| {section.words}, % | start | control | RL | RL less start | RL less control |",
        "|---|---|---|---|---|---|",
    ]
    for one in records:
        start = found(one, "rl_to_start", *section.headline)
        control = found(one, "rl_to_control", *section.headline)
        lines.append(
            f"| seed {one['seed']} | {percent(start['before'])} | {percent(control['before'])} "
            f"| {percent(start['after'])} | {points(start)} | {points(control)} |"
        )
    size = found(records[0], "rl_to_start", *section.headline)["size"]
    lines.append(f"\n{size}.")
    return "\n".join(lines)


def further(section: Section, records: Sequence[Record]) -> str:
    """Every metric over the seeds."""
    lines = ["| mean ± standard deviation, % | start | control | RL |", "|---|---|---|---|"]
    for set_name, metric, words in [(*section.headline, section.words), *section.others]:
        start = [found(one, "rl_to_start", set_name, metric) for one in records]
        control = [found(one, "rl_to_control", set_name, metric) for one in records]
        cells = [
            spread([one["before"] for one in start]),
            spread([one["before"] for one in control]),
            spread([one["after"] for one in control]),
        ]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def costs(section: Section, records: Sequence[Record]) -> str:
    """Seconds of training."""
    said = []
    for arm, words in (("rl", "RL"), ("control", "the control")):
        seconds = [one["cost"][arm]["cpu_s"] for one in records]
        steps = records[0]["cost"][arm]["num_steps"]
        said.append(f"{words} {min(seconds):.0f} to {max(seconds):.0f} ({steps} steps)")
    return f"CPU seconds of training, evaluations left out: {', '.join(said)}. A run: `{section.command}`."


def percent(value: float) -> str:
    """A fraction as it is shown."""
    return f"{100 * value:.1f}"


def points(difference: Record) -> str:
    """A difference in points with its interval."""
    change = difference["after"] - difference["before"]
    low = 100 * difference["low"]
    high = 100 * difference["high"]
    return f"{100 * change:+.1f} ({low:+.1f} to {high:+.1f})"


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of fractions, in percent."""
    mean = percent(statistics.mean(values))
    return f"{mean} ± {percent(statistics.stdev(values))}" if len(values) > 1 else mean


def foot(records: Sequence[Record]) -> str:
    """How it is made again."""
    made = records[0]["made_with"]
    named = ", ".join(one["made_with"]["commit"] for one in records)
    commits = ", ".join(sorted(set(named.split(", "))))
    return (
        "`FSDD_ROOT=<folder> make quickstart-seeds` makes this page again; the records are in "
        f"[quickstart.json](quickstart.json). Machine: {made['machine']}, one thread a run, torch {made['torch']}, "
        f"transformers {made['transformers']}; commit {commits}. Other work ran beside it, so CPU seconds are "
        "compared, and not those of the clock."
    )
