"""Subset builders that look at hypotheses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from lightning_audiorl.data.hypotheses.reader import Predicted, Sample
from lightning_audiorl.data.mix.selection import (
    Candidate,
    Choice,
    Hallucinating,
    Hard,
    Learnable,
    SubsetBuilder,
    choose,
)
from lightning_audiorl.data.mix.selection.by_hypotheses import disagreement
from lightning_audiorl.text import ErrorCounts, KeywordCounts, count_errors
from lightning_audiorl.types import Segment, Utterance


def predicted(
    reference: str,
    said: Sequence[str],
    rules: Sequence[str] = (),
    model: str = "base",
    decoding: str = "sampled",
) -> Predicted:
    """One model's samples of a row; ``rules[i]`` names the rules that fired in sample i, joined by spaces."""
    fired = [*rules, *[""] * len(said)]
    samples = tuple(
        Sample(
            t,
            decoding,
            i,
            -1.0,
            3,
            True,
            count_errors(reference, t),
            tuple(fired[i].split()),
            KeywordCounts(),
        )
        for i, t in enumerate(said)
    )
    return Predicted("a", model, reference, "0" * 16, samples, 0.1)


def candidate(*outputs: Predicted, row_id: str = "a", lang: str = "en") -> Candidate:
    reference = outputs[0].reference if outputs else "a b"
    return Candidate(0, Utterance(row_id, (Segment("a.wav", 1.0),), reference, 1.0, lang), outputs)


def only(builder: SubsetBuilder, one: Candidate) -> Choice:
    def start() -> Iterator[Candidate]:
        yield one

    (choice,) = choose(builder, start, 0).choices
    return choice


def removed(builder: SubsetBuilder, one: Candidate) -> str:
    verdict = builder.judge(one)
    assert not verdict.keep
    return verdict.reason


def test_disagreement_by_hand() -> None:
    assert disagreement(["a b", "A b.", "a c"], "en") == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert disagreement(["a b c d", "a"], "en") == disagreement(["a", "a b c d"], "en") == 0.75
    assert disagreement(["", "a b"], "en") == 1.0
    assert disagreement(["", " "], "en") == 0.0
    assert disagreement(["你好", "你们"], "zh") == 0.5
    same, other = "a b", "x y"
    assert disagreement([same, same, other, other], "en") == pytest.approx(4 / 6)


def test_hard_across_samples() -> None:
    choice = only(Hard(), candidate(predicted("a b", ["a b", "a b", "a c"])))
    assert choice.reason == "disagreement 0.33 between 3 samples"
    assert choice.priority == pytest.approx(1 / 3)
    assert removed(Hard(), candidate(predicted("a b", ["x y", "x y"]))) == "disagreement below 0.1"
    assert removed(Hard(), candidate(predicted("a b", ["x y", "v w"]))) == "disagreement above 0.8"


def test_hard_across_models_compares_their_first_samples() -> None:
    two = candidate(predicted("a b", ["a b", "x"]), predicted("a b", ["a c", "y"], model="other"))
    assert only(Hard(across="models"), two).reason == "disagreement 0.50 between 2 models"
    with pytest.raises(
        ValueError, match=r"Hard: row 'a' has hypotheses of 'base' only; .*second model"
    ):
        Hard(across="models").judge(candidate(predicted("a b", ["a b", "a c"])))
    with pytest.raises(ValueError, match="0 samples of decoding greedy by 'base', needs 1 or more"):
        Hard(across="models", decodings=["greedy"]).judge(two)


def test_hallucination_rate_and_the_rules_that_count() -> None:
    one = candidate(
        predicted("a b", ["w", "x", "y", "a b"], ["loop", "runaway_length", "loop runaway_length"])
    )
    choice = only(Hallucinating(), one)
    assert choice.reason == "hallucination rate 0.75 over 4 samples (loop, runaway_length)"
    assert choice.priority == 0.75
    assert (
        only(Hallucinating(rules=["loop"]), one).reason
        == "hallucination rate 0.50 over 4 samples (loop)"
    )
    assert removed(Hallucinating(min_rate=0.8), one) == "hallucination rate below 0.8"
    assert removed(Hallucinating(rules=["truncation"]), one) == "no rule fired"


def test_learnable_keeps_pass_rates_strictly_between_the_bounds() -> None:
    some = candidate(predicted("a b", ["a b", "a", "b", "a"]))
    choice = only(Learnable(), some)
    assert (choice.reason, choice.priority) == ("1 of 4 samples pass", 0.25 * 0.75)
    assert removed(Learnable(), candidate(predicted("a b", ["a", "b"]))) == "pass rate not above 0"
    assert (
        removed(Learnable(), candidate(predicted("a b", ["a b", "a b"]))) == "pass rate not below 1"
    )
    assert removed(Learnable(low=0.25), some) == "pass rate not above 0.25"
    assert removed(Learnable(max_error_rate=0.5), some) == "pass rate not below 1"


def test_decodings_and_models_are_picked_by_name() -> None:
    greedy, sampled = predicted("a b", ["x"], decoding="greedy"), predicted("a b", ["a b", "a b"])
    both = Predicted("a", "base", "a b", "0" * 16, greedy.samples + sampled.samples, 0.1)
    assert only(Learnable(), candidate(both)).reason == "2 of 3 samples pass"
    assert removed(Learnable(decodings=["sampled"]), candidate(both)) == "pass rate not below 1"
    two = candidate(both, predicted("a b", ["a b", "a"], model="other"))
    assert only(Learnable(model="other"), two).reason == "1 of 2 samples pass"
    with pytest.raises(
        ValueError, match="hypotheses of 'base', 'other'; name one of them as model"
    ):
        Learnable().judge(two)
    with pytest.raises(ValueError, match="none of them is 'third'"):
        Learnable(model="third").judge(two)


@pytest.mark.parametrize("builder", [Hard(), Hard(across="models"), Hallucinating(), Learnable()])
def test_a_row_without_hypotheses_is_an_error_that_names_it(builder: SubsetBuilder) -> None:
    assert builder.needs_hypotheses
    with pytest.raises(
        ValueError,
        match=f"{type(builder).__name__}: row 'b7' has no hypotheses; run `audiorl predict`",
    ):
        builder.judge(candidate(row_id="b7"))


@pytest.mark.parametrize("builder", [Hard(), Hallucinating(min_samples=2), Learnable()])
def test_too_few_samples_are_an_error_that_says_how_many_are_needed(builder: SubsetBuilder) -> None:
    with pytest.raises(
        ValueError, match=r"row 'a' has 1 samples by 'base', needs 2 or more \(decodings there: sam"
    ):
        builder.judge(candidate(predicted("a b", ["a b"])))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Hard(across="rows"), "across must be"),  # type: ignore[arg-type]
        (lambda: Hard(across="models", model="base"), "leave model='base' out"),
        (lambda: Hard(min_disagreement=0), "0 < min_disagreement"),
        (lambda: Hard(min_disagreement=0.5, max_disagreement=0.4), "<= max_disagreement"),
        (lambda: Hard(decodings="greedy"), "list of one or more names"),
        (lambda: Hallucinating(min_rate=0), "0 < min_rate"),
        (lambda: Hallucinating(rules="loop"), "list of one or more names"),
        (lambda: Learnable(low=0.5, high=0.5), "low < high"),
        (lambda: Learnable(min_samples=1), "min_samples >= 2"),
        (lambda: Learnable(num_rows=-1), "num_rows >= 1"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], SubsetBuilder], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_errors_count_what_the_file_says() -> None:
    """The pass rate comes from the counts that were made when decoding, not from a second alignment."""
    wrong = Sample("a b", "sampled", 0, -1.0, 3, True, ErrorCounts(1, 1), (), KeywordCounts())
    right = Sample("zzz", "sampled", 1, -1.0, 3, True, ErrorCounts(2), (), KeywordCounts())
    one = candidate(Predicted("a", "base", "a b", "0" * 16, (wrong, right), 0.1))
    assert only(Learnable(), one).reason == "1 of 2 samples pass"
