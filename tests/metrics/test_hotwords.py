"""Keyword recall by the list that the prompt had, and listed words that nobody said."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_audiorl.metrics.asr import AsrMetrics
from lightning_audiorl.rewards import Keyword
from lightning_audiorl.types import Hypothesis, Utterance


def said(text: str, hotwords: list[str], reference: str = "call anna") -> Hypothesis:
    extra = {"hotwords": hotwords} if hotwords else {}
    return Hypothesis(Utterance("a", (), reference, 1.0, keywords=("anna",), extra=extra), text)


def rates(*hypotheses: Hypothesis) -> dict[str, float]:
    metric = AsrMetrics()
    metric.update(hypotheses)
    return {name: float(value) for name, value in metric.compute().items()}


def test_recall_is_apart_by_the_list() -> None:
    right = ["anna", "victor"]
    found = rates(
        said("call anna", right),
        said("call victor", right),
        said("call Anna", right),
        said("call hannah", right),
        said("call anna", ["victor"]),
        said("call victor", ["victor"]),
        said("call hannah", ["victor"]),
        said("call anna", []),
    )
    assert found["hotword_recall"] == 0.5
    assert found["hotword_recall_wrong"] == pytest.approx(1 / 3)
    assert found["hotword_recall_none"] == 1.0
    # Seven lists hold a word that is not said, and two of them have it written.
    assert found["hotword_false_alarm_rate"] == pytest.approx(2 / 7)
    assert found["keyword_recall"] == 0.5


def test_without_lists_a_set_has_the_metrics_that_it_had() -> None:
    found = rates(said("call anna", []))
    assert not [name for name in found if name.startswith("hotword")]
    # Of a list with said words alone there is nothing that could be a false alarm.
    assert math.isnan(rates(said("call anna", ["anna"]))["hotword_false_alarm_rate"])


def test_counts_of_ranks_add_up() -> None:
    one = AsrMetrics()
    other = AsrMetrics()
    one.update([said("call anna", ["anna", "victor"])])
    other.update([said("call victor", ["anna", "victor"])])
    one.hotword_sums += other.hotword_sums
    one.sums += other.sums
    assert one.compute()["hotword_recall"] == torch.tensor(0.5)


def test_the_keyword_reward_may_punish_a_listed_word_that_nobody_said() -> None:
    invented = said("call anna victor", ["anna", "victor"])
    assert Keyword().score([invented]) == [1.0]
    assert Keyword(hotwords=True).score([invented, said("call anna", ["anna", "victor"])]) == [
        0.75,
        1.0,
    ]
