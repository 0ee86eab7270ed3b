from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser

from lightning_audiorl.rewards import (
    Accuracy,
    Hallucination,
    Keyword,
    Reward,
    RewardError,
    RewardMix,
)
from lightning_audiorl.text import Loop, MixedNormaliser
from lightning_audiorl.types import Hypothesis
from tests.text.cases import hypothesis

GROUPS = [
    [hypothesis("one two", "one two", id="x"), hypothesis("one two", "one", id="x")],
    [hypothesis("", "", id="y"), hypothesis("", "a b c", id="y")],
]


Answer = Callable[[Sequence[Hypothesis]], Any]


class Custom(Reward):
    """Whatever ``answer`` says of all hypotheses."""

    def __init__(self, answer: Answer, weight: float = 1.0, name: str = "custom") -> None:
        super().__init__(weight, name)
        self.answer = answer

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        return self.answer(hypotheses)


def raising_on(text: str) -> Custom:
    def answer(hypotheses: Sequence[Hypothesis]) -> list[float]:
        if any(h.text == text for h in hypotheses):
            raise KeyError(f"no answer for {text!r}")
        return [0.25] * len(hypotheses)

    return Custom(answer)


def valued(values: list[Any]) -> Custom:
    return Custom(lambda hypotheses: [values[i] for i in range(len(hypotheses))])


def test_worked_numbers() -> None:
    scores = RewardMix([Accuracy(weight=2.0), Hallucination(weight=0.5)]).score(GROUPS)
    torch.testing.assert_close(scores.parts["accuracy"], torch.tensor([[1.0, 0.5], [1.0, -2.0]]))
    torch.testing.assert_close(
        scores.parts["hallucination"], torch.tensor([[0.0, 0.0], [0.0, -1.0]])
    )
    torch.testing.assert_close(scores.total, torch.tensor([[2.0, 1.0], [2.0, -4.5]]))
    assert scores.total.dtype == torch.float32
    assert scores.valid.all()
    assert scores.failures == {"accuracy": 0, "hallucination": 0}


def test_a_reward_that_raises_loses_only_its_sample(caplog: pytest.LogCaptureFixture) -> None:
    mix = RewardMix([Accuracy(), raising_on("one")])
    with caplog.at_level(logging.WARNING):
        scores = mix.score(GROUPS)
        mix.score(GROUPS)
    assert scores.valid.tolist() == [[True, False], [True, True]]
    assert scores.failures == {"accuracy": 0, "custom": 1}
    assert scores.parts["custom"].isnan().tolist() == [[False, True], [False, False]]
    torch.testing.assert_close(scores.total[scores.valid], torch.tensor([1.25, 1.25, -1.75]))
    assert scores.total.isfinite().all()
    assert len(caplog.records) == 1, "said once per reward"
    assert "custom" in caplog.text
    assert "no answer for 'one'" in caplog.text


def test_the_others_of_a_group_keep_their_value_within_it() -> None:
    """A reward that compares the samples of a group does so for those that it can score."""

    def answer(hypotheses: Sequence[Hypothesis]) -> list[float]:
        if any(h.text == "broken" for h in hypotheses):
            raise ValueError("broken")
        groups = [
            [h for h in hypotheses if h.row.id == name]
            for name in dict.fromkeys(h.row.id for h in hypotheses)
        ]
        return [float(len(group)) for group in groups for _ in group]

    group = [hypothesis("a", text, id="x") for text in ("a", "broken", "b", "c")]
    scores = RewardMix([Custom(answer)]).score([group, [hypothesis("a", "a", id="y")] * 4])
    assert scores.valid.tolist() == [[True, False, True, True], [True] * 4]
    assert scores.total[scores.valid].tolist() == [3.0] * 3 + [4.0] * 4


def test_a_reward_that_fails_on_groups_alone_is_asked_one_by_one_unless_a_sample_is_at_fault() -> (
    None
):
    def answer(hypotheses: Sequence[Hypothesis]) -> list[float]:
        if len(hypotheses) > 1 or hypotheses[0].text == "broken":
            raise MemoryError("too many")
        return [0.5]

    fine, spoiled = (
        [hypothesis("a", "a", id="x")] * 3,
        [hypothesis("a", t, id="y") for t in ("a", "broken", "b")],
    )
    scores = RewardMix([Custom(answer)]).score([fine, spoiled])
    assert scores.valid.tolist() == [[True] * 3, [False] * 3], (
        "nobody knows what the others would get together"
    )
    assert scores.failures == {"custom": 3}


@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, -math.inf, 1e39, None, "0.5", torch.tensor(0.5), [0.5]]
)
def test_a_value_that_is_no_number_is_a_failure(bad: Any) -> None:
    scores = RewardMix([valued([0.5, bad, 1, np.float32(2)])]).score(GROUPS)
    assert scores.valid.tolist() == [[True, False], [True, True]]
    torch.testing.assert_close(scores.total[scores.valid], torch.tensor([0.5, 1.0, 2.0]))
    assert scores.failures == {"custom": 1}


@pytest.mark.parametrize(
    "answer", [lambda h: [0.0] * (len(h) + 1), lambda h: [], lambda h: None, lambda h: 0.5]
)
def test_wrong_length_or_no_list_is_an_error(answer: Answer) -> None:
    with pytest.raises(RewardError, match=r"reward 'custom' \(Custom\) returned .*expected"):
        RewardMix([Accuracy(), Custom(answer)]).score(GROUPS)


def test_failing_on_every_sample_is_an_error() -> None:
    with pytest.raises(RewardError, match=r"'custom' .*all 4 samples.*nan"):
        RewardMix([Accuracy(), valued([math.nan] * 4)]).score(GROUPS)

    def broken(hypotheses: Sequence[Hypothesis]) -> list[float]:
        raise ZeroDivisionError("broken")

    with pytest.raises(
        RewardError, match=r"all 4 samples.*ZeroDivisionError\('broken'\)"
    ) as caught:
        RewardMix([Custom(broken)]).score(GROUPS)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_on_error_raise() -> None:
    with pytest.raises(RewardError, match=r"'custom'.*no answer for 'one'") as caught:
        RewardMix([raising_on("one")], on_error="raise").score(GROUPS)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(RewardError, match="gave nan for row 'y'"):
        RewardMix([valued([1.0, 1.0, math.nan, 1.0])], on_error="raise").score(GROUPS)


def test_interrupts_pass() -> None:
    def stop(hypotheses: Sequence[Hypothesis]) -> list[float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RewardMix([Custom(stop)]).score(GROUPS)


def test_weight_zero_is_only_logged() -> None:
    watched = valued([1.0, math.nan, 3.0, 4.0])
    watched.weight = 0.0
    scores = RewardMix([Accuracy(), watched]).score(GROUPS)
    assert scores.valid.all()
    assert scores.failures["custom"] == 1
    torch.testing.assert_close(scores.total, scores.parts["accuracy"])


def test_bad_mixes() -> None:
    with pytest.raises(ValueError, match="at least one reward"):
        RewardMix([])
    with pytest.raises(ValueError, match=r"accuracy.*more than once"):
        RewardMix([Accuracy(), Accuracy()])
    with pytest.raises(ValueError, match="all weights"):
        RewardMix([Accuracy(weight=0.0)])
    with pytest.raises(ValueError, match="on_error"):
        RewardMix([Accuracy()], on_error="ignore")  # type: ignore[arg-type]
    broken = Accuracy()
    broken.weight = math.nan
    with pytest.raises(ValueError, match=r"'accuracy'.*nan"):
        RewardMix([broken])


def test_bad_groups() -> None:
    mix = RewardMix([Accuracy()])
    for groups in ([], [[]], [GROUPS[0], GROUPS[1][:1]]):
        with pytest.raises(ValueError, match="groups of one size"):
            mix.score(groups)


YAML = """
mix:
  on_error: exclude
  rewards:
    - class_path: lightning_audiorl.rewards.Accuracy
      init_args:
        weight: 0.5
        floor: -1.0
        normalisers:
          zh: {class_path: lightning_audiorl.text.MixedNormaliser}
    - class_path: lightning_audiorl.rewards.Hallucination
      init_args:
        rules:
          - class_path: lightning_audiorl.text.Loop
            init_args: {slack: 4}
    - class_path: lightning_audiorl.rewards.Keyword
      init_args: {keywords: [anna, new york]}
    - class_path: lightning_audiorl.rewards.SoftOverlong
      init_args: {decoding: {max_new_tokens: 64}}
    - class_path: lightning_audiorl.rewards.ExpAccuracy
    - class_path: lightning_audiorl.rewards.ExactMatch
    - class_path: lightning_audiorl.rewards.EditCount
"""


def build(text: str) -> RewardMix:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(RewardMix, "mix")
    return parser.instantiate_classes(parser.parse_string(text)).mix


def test_built_from_yaml() -> None:
    mix = build(YAML)
    accuracy, hallucination, keyword, overlong = mix.rewards[:4]
    assert isinstance(accuracy, Accuracy)
    assert (accuracy.weight, accuracy.floor) == (0.5, -1.0)
    assert isinstance(accuracy.normalisers["zh"], MixedNormaliser)
    assert isinstance(hallucination, Hallucination)
    assert hallucination.rules == (Loop(slack=4),)
    assert isinstance(keyword, Keyword)
    assert keyword.keywords == ("anna", "new york")
    assert overlong.decoding.max_new_tokens == 64  # type: ignore[attr-defined]
    assert len(mix.score(GROUPS).parts) == 7


def test_a_misspelt_key_is_refused() -> None:
    with pytest.raises(ArgumentError, match="wieght"):
        build(YAML.replace("weight: 0.5", "wieght: 0.5"))
