"""Error rates of words in keywords and of the others, and the mean of the utterances' own rates."""

from __future__ import annotations

import math
import random

import pytest
import torch

from lightning_audiorl.metrics import AsrEvaluation, AsrMetrics, SpeechEvaluation
from lightning_audiorl.metrics.functional import align, biased_errors
from lightning_audiorl.text import ErrorCounts
from lightning_audiorl.types import Hypothesis
from tests.text.cases import hypothesis


def metrics(hypotheses: list[Hypothesis], **arguments: object) -> dict[str, float]:
    metric = AsrMetrics(**arguments)  # type: ignore[arg-type]
    metric.update(hypotheses)
    return {name: value.item() for name, value in metric.compute().items()}


def test_worked_numbers() -> None:
    # Biased: york, ghent. A substitution and an insertion of theirs; a deletion and an insertion of others.
    one = hypothesis(
        "the road from york to ghent",
        "road from cork to ghent ghent now",
        keywords=("York", "Ghent"),
    )
    # Without keywords: all of it counts to the others.
    other = hypothesis("turn left", "turn right", id="v")
    rates = metrics([one, other])
    assert rates["b_wer"] == pytest.approx(2 / 2)
    assert rates["u_wer"] == pytest.approx((2 + 1) / (4 + 2))
    assert rates["wer"] == pytest.approx(5 / 8)


def test_words_of_a_keyword_count_where_it_stands_whole() -> None:
    one = align("new york and york", "york and new")
    assert biased_errors(one, [["new", "york"]]) == ErrorCounts(hits=1, deletions=1)
    # An inserted "new" by itself is no keyword.
    assert biased_errors(align("cork", "new cork"), [["new", "york"]]) == ErrorCounts()
    # With a york that was said it makes the keyword.
    assert biased_errors(align("york", "new york"), [["new", "york"]]).insertions == 1


def test_both_parts_are_the_whole() -> None:
    draw = random.Random(0)
    words = ["one", "two", "three", "oh", "york"]
    for _ in range(200):
        reference, text = (" ".join(draw.choices(words, k=draw.randint(1, 9))) for _ in range(2))
        alignment = align(reference, text)
        listed = [[word] for word in words]
        every = biased_errors(alignment, listed)
        assert every == ErrorCounts(
            len(alignment.hit_at),
            alignment.substitutions,
            alignment.deletions,
            alignment.insertions,
        )

        some = biased_errors(alignment, listed[:2])
        others = biased_errors(alignment, listed[2:])
        assert some + others == every


def test_characters_of_a_keyword() -> None:
    rates = metrics([hypothesis("我去北京看你", "我去背景看你", lang="zh", keywords=("北京",))])
    assert rates["b_wer"] == 1.0
    assert rates["u_wer"] == 0.0


def test_a_set_without_keywords_has_neither() -> None:
    rates = metrics([hypothesis("turn left", "turn right")])
    assert not {"b_wer", "u_wer", "utterance_wer"}.intersection(rates)


def test_keywords_of_a_distractor_count_where_they_are_said() -> None:
    rates = metrics([hypothesis("turn left", "turn left york")], keywords=["york"])
    assert math.isnan(rates["b_wer"])
    assert rates["u_wer"] == 0.0


def test_the_mean_of_utterances_weighs_each_alike() -> None:
    batch = [
        hypothesis("one", "two"),
        hypothesis("a b c d e f g h i", "a b c d e f g h i", id="v"),
        # Nothing is spoken here, and no rate is defined.
        hypothesis("", "thank you", id="w"),
    ]
    rates = metrics(batch, utterance_wer=True)
    assert rates["utterance_wer"] == 0.5
    assert rates["wer"] == pytest.approx(3 / 10)

    made = AsrEvaluation(utterance_wer=True).new()
    made.update(batch)
    assert made.compute()["utterance_wer"] == 0.5
    assert math.isnan(AsrEvaluation(utterance_wer=True).new().compute()["utterance_wer"])


def test_order_and_batches_change_nothing() -> None:
    batch = [
        hypothesis("call york", "call cork", keywords=("york",)),
        hypothesis("a b c", "a c", id="v"),
        hypothesis("ghent", "ghent york", id="w", keywords=("ghent",)),
    ]
    whole = AsrMetrics(utterance_wer=True)
    whole.update(batch)
    parts = AsrMetrics(utterance_wer=True)
    for one in reversed(batch):
        parts.update([one])
    for name, value in whole.compute().items():
        torch.testing.assert_close(parts.compute()[name], value, equal_nan=True)


def test_speech_evaluation_passes_it_on() -> None:
    assert SpeechEvaluation(utterance_wer=True).new().compute()["utterance_wer"].isnan()
    assert "utterance_wer" not in SpeechEvaluation().new().compute()
