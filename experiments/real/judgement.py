"""What is said of the records of experiments/real/runs.py: paired bootstrap intervals, and the bar."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.real.records import (
    HYPOTHESIS,
    INSERTIONS,
    REFERENCE,
    Record,
    error_rate,
)

NUM_RESAMPLES = 2000

#: Of a run, what each row adds to the upper and the lower part of a ratio.
Parts = Callable[[Record], "tuple[list[float], list[float]]"]


@dataclass(frozen=True)
class Interval:
    """A difference of two ratios and its 95 % interval."""

    difference: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def paired(one: Sequence[Record], other: Sequence[Record], parts: Parts) -> Interval:
    """The ratio of some runs less that of others on the same rows, rows drawn again with replacement.

    Each row stands with all its seeds in both, so that what is hard for both moves neither.

    Args:
        one, other: runs of an arm; one or more seeds each.
        parts: see `Parts`.
    """
    upper, lower = _sums(one, parts)
    other_upper, other_lower = _sums(other, parts)

    num_rows = len(upper)
    generator = np.random.default_rng(0)
    drawn = generator.integers(num_rows, size=(NUM_RESAMPLES, num_rows))
    ratios = upper[drawn].sum(1) / lower[drawn].sum(1)
    others = other_upper[drawn].sum(1) / other_lower[drawn].sum(1)
    low, high = np.quantile(ratios - others, [0.025, 0.975])

    difference = upper.sum() / lower.sum() - other_upper.sum() / other_lower.sum()
    return Interval(float(difference), float(low), float(high))


def _sums(runs: Sequence[Record], parts: Parts) -> tuple[Any, Any]:
    """Upper and lower parts by row, added up over the runs."""
    found = [parts(run) for run in runs]
    upper = np.sum([np.asarray(above, dtype=float) for above, _ in found], axis=0)
    lower = np.sum([np.asarray(below, dtype=float) for _, below in found], axis=0)
    return upper, lower


def errors(name: str, normaliser: str = "numbers") -> Parts:
    """WER of a set."""

    def parts(run: Record) -> tuple[list[float], list[float]]:
        counts = run["sets"][name][normaliser]
        return [sum(row[:REFERENCE]) for row in counts], [row[REFERENCE] for row in counts]

    return parts


def insertions(name: str) -> Parts:
    """Inserted words per word of the references."""

    def parts(run: Record) -> tuple[list[float], list[float]]:
        counts = run["sets"][name]["numbers"]
        return [row[INSERTIONS] for row in counts], [row[REFERENCE] for row in counts]

    return parts


def with_text(run: Record) -> tuple[list[float], list[float]]:
    """Share of the non-speech clips whose greedy answer has text."""
    return [float(bool(row["text"])) for row in run["nonspeech"]], [1.0] * len(run["nonspeech"])


def sampled_text(run: Record) -> tuple[list[float], list[float]]:
    """Share of the sampled answers to non-speech that have text."""
    return [row["sampled"] for row in run["nonspeech"]], [
        row["samples"] for row in run["nonspeech"]
    ]


def ratio(run: Record, parts: Parts) -> float:
    """The whole ratio of one run."""
    above, below = parts(run)
    return sum(above) / sum(below)


def length_ratio(run: Record, name: str = "prompts") -> float:
    """Words written per word of the references."""
    counts = run["sets"][name]["numbers"]
    return sum(row[HYPOTHESIS] for row in counts) / sum(row[REFERENCE] for row in counts)


def wer(run: Record, name: str, normaliser: str = "numbers") -> float:
    """Error rate of a set."""
    return error_rate(run["sets"][name][normaliser])


def look_at(run: Record, step: int) -> Record:
    """The look at non-speech after a step.

    Raises:
        KeyError: there was none.
    """
    for look in run["looks"]:
        if look["step"] == step:
            return dict(look)
    raise KeyError(f"{run['arm']} {run['seed']}: no look after step {step}")


def turned(run: Record) -> int | None:
    """The first looked-at step after which the empty answer has a probability of one half; None where it never has."""
    for step, share in run["probes"]:
        if share >= 0.5:
            return int(step)
    return None


@dataclass(frozen=True)
class Check:
    """One demand of the bar on one run."""

    what: str
    value: float
    bound: str
    met: bool


def bar(run: Record, start: Record, plain: Record | None) -> list[Check]:
    """What GRPO with the reference in the group is held to.

    Args:
        run: of that arm.
        start: not trained.
        plain: GRPO without the reference, same seed; None leaves the costs out.
    """
    early = look_at(run, 8)
    text_share = statistics.fmean(early["text"])
    likely = statistics.fmean(early["p_empty"])
    sampled = ratio(run, sampled_text)
    rise = 100 * (wer(run, "prompts") - wer(start, "prompts"))
    lengths = length_ratio(run)

    checks = [
        Check("text on non-speech after 8 steps, %", 100 * text_share, "<= 10", text_share <= 0.1),
        Check("P of the empty answer after 8 steps", likely, ">= 0.9", likely >= 0.9),
        Check("samples with text at the end, %", 100 * sampled, "<= 5", sampled <= 0.05),
        Check("test WER, points above the start", rise, "<= 1", rise <= 1),
        Check("length ratio", lengths, "0.97 to 1.03", 0.97 <= lengths <= 1.03),
    ]
    if "long" in run["sets"]:
        long_rise = 100 * (wer(run, "long") - wer(start, "long"))
        checks.append(
            Check("long-form WER, points above the start", long_rise, "<= 1", long_rise <= 1)
        )
    if plain is not None:
        costs = step_seconds(run) / step_seconds(plain)
        checks.append(
            Check("CPU seconds of a step over plain GRPO's", costs, "<= 1.3", costs <= 1.3)
        )
    return checks


def step_seconds(run: Record) -> float:
    """Mean CPU seconds of a step."""
    return statistics.fmean(run["steps"]["cpu_s"])
