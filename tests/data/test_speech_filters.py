"""Rules over texts and over judged samples: worked cases, counting, and what is said when samples are missing."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_audiorl.data import (
    Filters,
    PassRate,
    Similar,
    Stops,
    TextCharset,
    TextLength,
    TokenRate,
)
from lightning_audiorl.data.hypotheses.reader import (
    HypothesisError,
    HypothesisFiles,
    Predicted,
    Sample,
    SpeechSample,
    row_fingerprint,
    to_line,
)
from lightning_audiorl.data.mix.selection import (
    Candidate,
    RandomControl,
    RepeatedPhrases,
    SubsetBuilder,
    choose,
)
from lightning_audiorl.text import ErrorCounts, KeywordCounts
from lightning_audiorl.types import Utterance

ROW = Utterance("r", (), "one two", 2.0)


def sample(
    cer: float | None = 0.0,
    similarity: float | None = 0.8,
    num_tokens: int = 50,
    finished: bool = True,
    decoding: str = "sampled",
) -> Sample:
    speech = SpeechSample(cer, similarity, num_tokens / 25)
    errors, keywords = ErrorCounts(2, 0, 0, 0), KeywordCounts(0, 0, 0)
    return Sample("one two", decoding, 0, -3.0, num_tokens, finished, errors, (), keywords, speech)


def predicted(*samples: Sample, row: Utterance = ROW) -> Predicted:
    return Predicted(row.id, "tts", row.text, row_fingerprint(row), samples, 0.5)


def candidate(*samples: Sample, row: Utterance = ROW) -> Candidate:
    return Candidate(0, row, (predicted(*samples, row=row),))


def test_a_line_keeps_what_judges_said(tmp_path: Path) -> None:
    line = predicted(sample(0.25, 0.81), sample(None, None, finished=False))
    (tmp_path / "h.jsonl").write_text(to_line(line) + "\n")
    assert HypothesisFiles([str(tmp_path / "h.jsonl")]).of(ROW) == (line,)
    assert json.loads(to_line(line))["samples"][1]["speech"] == {
        "cer": None,
        "similarity": None,
        "duration_s": 2.0,
    }
    assert "speech" not in to_line(predicted(replace(sample(), speech=None)))


@pytest.mark.parametrize(
    ("speech", "message"),
    [
        (
            {"cer": 0.1, "similarity": 0.5},
            "field `samples[0].speech.duration_s`: expected a number, it is missing",
        ),
        (
            {"cer": 0.1, "duration_s": 1.0},
            "field `samples[0].speech.similarity`: expected a number, it is missing",
        ),
        (
            {"cer": "0.1", "similarity": 1, "duration_s": 1},
            "speech.cer`: expected a number, got str",
        ),
        (
            {"cer": float("nan"), "similarity": 1, "duration_s": 1},
            "speech.cer`: expected a finite number or null",
        ),
        ([0.1], "field `samples[0].speech`: expected an object"),
    ],
)
def test_bad_lines_name_the_field(tmp_path: Path, speech: object, message: str) -> None:
    values = json.loads(to_line(predicted(sample())))
    values["samples"][0]["speech"] = speech
    (tmp_path / "h.jsonl").write_text(json.dumps(values) + "\n")
    with pytest.raises(HypothesisError, match=r"h\.jsonl, line 1, .*" + re.escape(message)):
        HypothesisFiles([str(tmp_path / "h.jsonl")]).of(ROW)


def test_pass_rate() -> None:
    some = candidate(sample(0.0), sample(0.5), sample(0.1), sample(0.02))
    verdict = PassRate(max_cer=0.05).judge(some)
    assert (verdict.keep, verdict.reason, verdict.priority) == (True, "2 of 4 samples pass", 0.25)
    assert PassRate(max_cer=0.1, high=0.75).judge(some).reason == "pass rate not below 0.75"
    assert PassRate(max_cer=0.05, low=0.5).judge(some).reason == "pass rate not above 0.5"
    assert PassRate(max_cer=0.5).judge(some).reason == "pass rate not below 1"


def test_samples_that_a_judge_failed_on_count_neither_way() -> None:
    some = candidate(sample(0.0, None), sample(None, 0.4), sample(None, None), sample(0.9, 0.6))
    assert PassRate().judge(some).reason == "1 of 2 samples pass"
    assert Similar(0.5).judge(some).reason == "mean similarity 0.50"
    none = candidate(sample(None, None), sample(None, None))
    assert PassRate().judge(none).reason == "the judge failed on every sample"
    assert Similar().judge(none).reason == "no sample has a similarity"
    assert not Similar().judge(none).keep


def test_similarity_pace_and_stop() -> None:
    one = candidate(
        sample(similarity=0.9, num_tokens=40), sample(similarity=0.3, num_tokens=60, finished=False)
    )
    assert Similar(0.6).judge(one).keep
    assert Similar(0.61).judge(one).reason == "mean similarity below 0.61"
    assert TokenRate(20, 30).judge(one).reason == "25.0 tokens per expected second"
    assert TokenRate(26, 30).judge(one).reason == "fewer than 26 tokens per expected second"
    assert TokenRate(10, 24).judge(one).reason == "more than 24 tokens per expected second"
    # The pace is that of the expected length, whatever the codec says of the sample's own.
    assert not TokenRate(20, 30).judge(candidate(sample(), row=replace(ROW, duration_s=4.0))).keep
    assert Stops(0.5).judge(one).keep
    assert Stops().judge(one).reason == "more than 0 of the samples lack the stop token"


def test_decodings_and_missing_samples() -> None:
    both = candidate(sample(0.0), sample(0.0), sample(0.9, decoding="greedy"))
    assert PassRate(decodings=["sampled"]).judge(both).reason == "pass rate not below 1"
    assert PassRate().judge(both).keep
    with pytest.raises(ValueError, match="PassRate: row 'r' has 1 samples of decoding greedy"):
        PassRate(decodings=["greedy"]).judge(both)
    with pytest.raises(ValueError, match="Stops: row 'r' has no hypotheses"):
        Stops().judge(Candidate(0, ROW))
    with pytest.raises(ValueError, match="Similar: row 'r' has hypotheses without `speech`"):
        Similar().judge(candidate(sample(), replace(sample(), speech=None)))


@pytest.mark.parametrize(
    ("rule", "text", "reason"),
    [
        (TextCharset("abcdefghijklmnopqrstuvwxyz "), "hello there", ""),
        (
            TextCharset("abcdefghijklmnopqrstuvwxyz "),
            "Hello",
            "text has a character outside the charset",
        ),
        (TextLength(min_chars=3), "ab", "text of fewer than 3 characters"),
        (TextLength(max_chars=3), "abcd", "text of more than 3 characters"),
        (TextLength(min_words=2), "one", "text of fewer than 2 words"),
        (TextLength(max_words=2), "one two three", "text of more than 2 words"),
        (TextLength(3, 7, 2, 2), "one two", ""),
    ],
)
def test_text_rules(rule: SubsetBuilder, text: str, reason: str) -> None:
    verdict = rule.judge(Candidate(0, replace(ROW, text=text)))
    assert verdict.keep == (reason == "")
    assert reason in ("", verdict.reason)


def test_a_row_is_counted_under_the_first_rule_that_it_fails() -> None:
    texts = ["ok then", "no", "fine too", "UPPER", "UP", "a b c d"]
    rows = [
        Candidate(number, replace(ROW, id=f"r{number}", text=text))
        for number, text in enumerate(texts)
    ]
    rules = Filters(
        [TextCharset("abcdefghijklmnopqrstuvwxyz "), TextLength(min_words=2, max_words=3)]
    )
    chosen = choose(rules, lambda: rows, seed=0)
    assert {choice.id for choice in chosen.choices} == {"r0", "r2"}
    assert chosen.choices[0].reason == "text within the charset; text of 2 words"
    assert chosen.removed == Counter(
        {
            "text has a character outside the charset": 2,
            "text of fewer than 2 words": 1,
            "text of more than 3 words": 1,
        }
    )
    assert (
        len(choose(Filters([TextLength()], num_rows=3), lambda: rows, seed=0, reserve=0.0).choices)
        == 3
    )


def test_rules_in_a_row_rank_and_ask_for_what_they_need() -> None:
    rules = Filters([TextLength(), PassRate(max_cer=0.05), Stops()])
    assert rules.needs_hypotheses
    assert not Filters([TextLength()]).needs_hypotheses
    verdict = rules.judge(candidate(sample(0.0), sample(0.5)))
    assert (verdict.keep, verdict.priority) == (True, 0.25)
    assert verdict.reason == "text of 2 words; 1 of 2 samples pass; 1.00 of the samples stop"
    assert not Filters([TextLength()]).surveys


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Filters([]), "give at least one rule"),
        (
            lambda: Filters([RandomControl(like="x")]),
            r"Filters\.rules\[0\]: RandomControl follows another subset",
        ),
        (
            lambda: Filters([TextLength(), RepeatedPhrases(5)]),
            r"Filters\.rules\[1\]: RepeatedPhrases .*its own num_rows",
        ),
        (lambda: TextCharset(""), "the charset is empty"),
        (
            lambda: TextLength(min_chars=5, max_chars=3),
            "want 0 <= min_chars <= max_chars; got 5, 3",
        ),
        (lambda: PassRate(low=0.5, high=0.5), "PassRate: want 0 <= low < high <= 1"),
        (lambda: Similar(2.0), "Similar: want -1 <= min_similarity <= 1"),
        (lambda: TokenRate(3, 2), "TokenRate: want 0 <= low <= high"),
        (lambda: Stops(1.0), "Stops: want 0 <= max_share < 1"),
        (lambda: Stops(min_samples=0), "Stops: want min_samples >= 1"),
    ],
)
def test_bad_settings(make: Callable[[], SubsetBuilder], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
