"""The page of experiments/real on made-up records: bar, intervals, tables, marked transcripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.real.evaluate import counts
from experiments.real.judgement import bar, errors, paired, sampled_text, turned, with_text
from experiments.real.page import bar_table, differences, page
from experiments.real.plots import along, bars
from experiments.real.records import collect
from experiments.real.transcripts import marked

NUM_ROWS = 40


def record(
    arm: str, seed: int, wrong: int, with_text: int, p_empty: float = 0.95
) -> dict[str, Any]:
    """A run whose first ``wrong`` prompts of five words have an error each, with text on ``with_text`` clips of ten."""
    speech = []
    for number in range(NUM_ROWS):
        counts = [int(number < wrong), 0, 0, 5, 5]
        about = {"id": f"p{number:02}", "kind": "prompt", "reference": "a b c d e"}
        text = "x b c d e" if number < wrong else "a b c d e"
        speech.append(about | {"text": text, "numbers": counts, "plain": counts})

    silent = []
    for number in range(10):
        text = "you" if number < with_text else ""
        about = {"id": f"n{number}", "kind": "hum" if number % 2 else "white", "reference": ""}
        about |= {"kind_in_training": number % 2 == 0, "text": text}
        silent.append(about | {"samples": [text] * 4, "p_empty": 1 - with_text / 10})

    looks = []
    for step in (8, 16, 24):
        rows = [{"p_empty": p_empty, "empty": number >= with_text} for number in range(10)]
        looks.append({"step": step, "rows": rows, "speech": speech[:4]})
    steps = [{"cpu_s": 5.0, "reward/mean": 0.5} for _ in range(24)]
    trained = {"cpu_s": 120.0, "encoding_cpu_s": 0.0, "curve": looks, "steps": steps}
    trained["probes"] = [(2, 0.1), (4, p_empty)]

    found = {"arm": arm, "seed": seed, "kl": 0.1, "evaluation_cpu_s": 60.0}
    found |= {"made_with": {"machine": "made up"}, "sets": {"prompts": speech, "long": speech}}
    found["sets"]["nonspeech"] = silent
    return found if arm == "start" else found | trained


@pytest.fixture
def kept(tmp_path: Path) -> dict[str, Any]:
    records = [record("start", 0, wrong=10, with_text=10)]
    for seed in (0, 1):
        records.append(record("grpo", seed, wrong=10, with_text=8, p_empty=0.3))
        records.append(record("grpo_reference", seed, wrong=2, with_text=0))
        records.append(record("sft", seed, wrong=12, with_text=0))
    for one in records:
        (tmp_path / f"{one['arm']}_{one['seed']}.json").write_text(json.dumps(one))
    return collect(tmp_path)


def run(kept: dict[str, Any], arm: str, seed: int = 0) -> dict[str, Any]:
    [found] = [one for one in kept["runs"] if (one["arm"], one["seed"]) == (arm, seed)]
    return dict(found)


def test_bar_is_met_and_missed(kept: dict[str, Any]) -> None:
    start = run(kept, "start")
    good = bar(run(kept, "grpo_reference"), start, run(kept, "grpo"))
    assert len(good) == 7
    assert all(check.met for check in good)

    bad = {check.what: check for check in bar(run(kept, "grpo"), start, None)}
    assert not bad["text on non-speech after 8 steps, %"].met
    assert bad["samples with text at the end, %"].value == pytest.approx(80)
    assert bad["test WER, points above the start"].value == pytest.approx(0)


def test_costs_are_held_against_plain_grpo(kept: dict[str, Any]) -> None:
    dear = run(kept, "grpo_reference")
    dear["steps"] = {"cpu_s": [7.0] * 24}
    costs = bar(dear, run(kept, "start"), run(kept, "grpo"))[-1]
    assert costs.value == pytest.approx(1.4)
    assert not costs.met


def test_paired_interval() -> None:
    def runs(wrong: int) -> list[dict[str, Any]]:
        counts = [[int(number < wrong), 0, 0, 5, 5] for number in range(NUM_ROWS)]
        return [{"sets": {"prompts": {"numbers": counts}}}]

    better = paired(runs(2), runs(12), errors("prompts"))
    assert better.difference == pytest.approx(-10 / 200)
    assert better.low < better.difference < better.high < 0
    assert better.excludes_zero

    same = paired(runs(5), runs(5), errors("prompts"))
    assert (same.low, same.high) == (0, 0)
    assert not same.excludes_zero
    # Rows are drawn alike each time.
    assert paired(runs(2), runs(12), errors("prompts")) == better


def test_shares_of_text(kept: dict[str, Any]) -> None:
    plain = run(kept, "grpo")
    upper, lower = with_text(plain)
    assert (sum(upper), sum(lower)) == (8, 10)
    upper, lower = sampled_text(plain)
    assert (sum(upper), sum(lower)) == (32, 40)


def test_turn(kept: dict[str, Any]) -> None:
    assert turned(run(kept, "grpo_reference")) == 4
    assert turned(run(kept, "grpo")) is None


def test_page_says_it_all(kept: dict[str, Any], tmp_path: Path) -> None:
    reading = tmp_path / "reading.md"
    reading.write_text("What is to be seen.\n")
    text = page(kept, reading)
    assert "What is to be seen." in text
    assert "not within 4" in text
    assert text.count("| SFT control |") >= 4

    met = [line.rpartition("| ")[2] for line in bar_table(kept).splitlines()[2:]]
    assert met == ["yes |"] * 7

    # Two seeds, each with two wrong prompts in place of twelve, of 200 words.
    line = next(one for one in differences(kept, "sft").splitlines() if "reference" in one)
    assert "**-5.00 [" in line
    assert "-5.0*, -5.0*" in line

    along(kept, tmp_path / "along.png")
    bars(kept, tmp_path / "rows.png")
    assert (tmp_path / "along.png").stat().st_size > 1000


def test_marked_words() -> None:
    assert marked("twenty one apples", "21 apples") == "21 apples"
    assert marked("bring an apple", "bring the apple now") == "bring **the** apple **now**"
    assert marked("good day", "") == "~~good~~ ~~day~~"
    assert marked("", "you <b>") == "**you**"


def test_no_records(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"runs\.py first"):
        collect(tmp_path)


def test_digits_are_counted_one_by_one() -> None:
    assert counts("four two one", "4, 22", are_digits=True)["numbers"] == [1, 0, 0, 3, 3]
    # Read as numbers they are one word, which is right or wrong.
    assert counts("four two one", "4, 22")["numbers"][3] == 1
