"""Paired bootstrap intervals and the verdicts that stand on them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_audiorl.metrics.rows import Part
from lightning_audiorl.reports.bootstrap import Interval, paired_intervals
from lightning_audiorl.reports.comparison import Difference, compare_rows
from lightning_audiorl.reports.verdict import verdict
from tests.reports.folders import rates, result, with_errors


def noisy(seed: int, num: int = 200) -> tuple[list[Part], list[Part]]:
    """Errors of rows that differ far more from each other than a run changes them."""
    generator = np.random.default_rng(seed)
    length = generator.integers(3, 30, num)
    errors = generator.binomial(length, 0.4)
    fewer = errors - generator.binomial(errors, 0.1)
    before = [(float(e), float(n)) for e, n in zip(errors, length, strict=True)]
    after = [(float(e), float(n)) for e, n in zip(fewer, length, strict=True)]
    return before, after


def test_intervals_are_those_of_a_loop_over_draws() -> None:
    before, after = noisy(0)
    found = paired_intervals({"wer": before}, {"wer": after}, "set")["wer"]

    generator = np.random.default_rng(1)
    first = np.asarray(before)
    second = np.asarray(after)
    differences = []
    for _ in range(4000):
        drawn = generator.integers(0, len(before), len(before))
        one = first[drawn].sum(0)
        other = second[drawn].sum(0)
        differences.append(other[0] / other[1] - one[0] / one[1])
    low, high = np.quantile(differences, [0.025, 0.975])

    assert found.difference.value == pytest.approx(
        second[:, 0].sum() / second[:, 1].sum() - first[:, 0].sum() / first[:, 1].sum()
    )
    assert found.difference.low == pytest.approx(low, abs=0.002)
    assert found.difference.high == pytest.approx(high, abs=0.002)
    # Rows that are hard for both widen each value's interval, and not that of the difference.
    width = found.difference.high - found.difference.low
    assert found.first.high - found.first.low > 2 * width


def test_the_same_rows_give_the_same_interval_and_a_set_of_another_name_others() -> None:
    before, after = noisy(0)
    again = [paired_intervals({"wer": before}, {"wer": after}, name)["wer"] for name in "aab"]
    assert again[0] == again[1]
    assert again[0] != again[2]
    # A metric that is added moves none.
    both = paired_intervals({"cer": after, "wer": before}, {"cer": before, "wer": after}, "a")
    assert both["wer"] == again[0]


def test_draws_without_anything_to_divide_by_are_left_out() -> None:
    parts: list[Part] = [(0.0, 0.0)] * 19 + [(1.0, 2.0)]
    found = paired_intervals({"wer": parts}, {"wer": parts}, "a")["wer"]
    assert (found.first.low, found.first.high) == (0.5, 0.5)
    nothing = paired_intervals({"wer": parts[:5]}, {"wer": parts[:5]}, "a")["wer"].difference
    assert math.isnan(nothing.value)
    assert not nothing.is_known


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("wer", -0.2, -0.1, "better"),
        ("wer", 0.1, 0.2, "worse"),
        ("wer", -0.1, 0.1, "unchanged"),
        ("wer", 0.0, 0.0, "unchanged"),
        ("keyword_f1", 0.1, 0.2, "better"),
        ("keyword_f1", -0.2, -0.1, "worse"),
        ("wer", math.nan, math.nan, "unknown"),
        # On which side of 1 it lies, a difference does not say; of the next no direction is better.
        ("length_ratio", -0.2, -0.1, "unknown"),
        ("tokens_per_unit", -0.2, -0.1, "unknown"),
    ],
)
def test_judgement(metric: str, low: float, high: float, expected: str) -> None:
    change = Interval((low + high) / 2, low, high)
    assert Difference("a", metric, Interval(0.5), Interval(0.5), change).judgement == expected


def test_the_verdict_names_what_improved_and_what_did_not() -> None:
    better = (with_errors([3] * 20), with_errors([1] * 20))
    same = (with_errors([1, 2] * 10), with_errors([2, 1] * 10))
    silent = ([result(f"n{i:02d}", "one", "") for i in range(20)], [])
    silent[1].extend(result(f"n{i:02d}", "" if i < 15 else "one", "") for i in range(20))
    pairs = {"long": better, "short": same, "noise": silent}
    before = {name: one for name, (one, _) in pairs.items()}
    after = {name: one for name, (_, one) in pairs.items()}

    sets = compare_rows(
        {name: rates(rows) for name, rows in before.items()} | {"long/sampled": {"wer": 0.5}},
        {name: rates(rows) for name, rows in after.items()} | {"long/sampled": {"wer": 0.1}},
        before,
        after,
    )
    found = verdict(sets, "the start (step 0)")
    judged = [(one.difference.set_name, one.difference.judgement) for one in found.findings]
    assert judged == [("long", "better"), ("short", "unchanged"), ("noise", "better")]
    assert found.headline == "Against the start (step 0): better in 2 of 3, worse in none"
    assert found.sentence.startswith(
        "Against the start (step 0): better: WER of long 75.0 → 25.0 % (-50.0 points, 95 % interval "
        "-50.0 to -50.0) on 20 utterances, 80 words, and nonspeech text rate of noise 100.0 → 25.0 %"
    )
    assert "no change beyond chance: WER of short 37.5 → 37.5 % (0.0 points" in found.sentence
    assert "on 20 utterances without words" in found.sentence


def test_few_or_other_rows_have_no_interval_and_say_why() -> None:
    rows = with_errors([1] * 5)
    metrics = {"dev": rates(rows)}
    few = compare_rows(metrics, metrics, {"dev": rows}, {"dev": rows})[0]
    assert few.note == "5 utterances are too few for an interval"
    other = compare_rows(metrics, metrics, {"dev": rows}, {"dev": rows[1:]})[0]
    assert other.note == "other rows were evaluated (5 and 4)"
    lost = compare_rows(metrics, metrics, {}, {"dev": rows})[0]
    assert lost.note == "the rows of an evaluation are not kept"

    found = verdict([lost], "the start")
    assert found.headline == "No interval: whether anything differs from the start is not known"
    assert "change without an interval: WER of dev 25.0 → 25.0 %" in found.sentence
    assert "nothing is better beyond chance" in found.sentence
