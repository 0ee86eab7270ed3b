"""Metrics of how often the right answer is sampled, against values made by hand, and the warning where it rarely is."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from lightning_audiorl.algorithms import GRPO, Optim
from lightning_audiorl.engine import RLModule, Sampler
from lightning_audiorl.engine.rarely_right import RarelyRight, nothing_right
from lightning_audiorl.losses import (
    CrossEntropy,
    PolicyGradient,
    ReferenceSample,
    WeightedGradients,
)
from lightning_audiorl.ops import Schedule
from lightning_audiorl.rewards import Accuracy, RewardMix
from lightning_audiorl.rewards.base import TextReward
from lightning_audiorl.types import PromptBatch, Scores
from tests.algorithms.tiny import SHORT, Judge, fit, make_batch, make_grpo, make_policy, trainable


def with_texts(*texts: str) -> PromptBatch:
    """The tiny batch, its rows saying what is given."""
    batch = make_batch()
    rows = tuple(replace(row, text=text) for row, text in zip(batch.rows, texts, strict=True))
    return replace(batch, rows=rows)


def log_prob(module: Any, batch: PromptBatch, number: int) -> float:
    """Of one row's text and its stop token, token by token."""
    policy = module.policy
    row = batch.rows[number]
    with torch.no_grad(), policy.evaluating():
        context = policy.encode(batch).select([number])
        targets = policy.targets(context, [row.text])
        logits = policy.head(policy.hidden(context, targets))[0]
    total = 0.0
    for position, token in enumerate(targets.tokens[0, 0].tolist()):
        total += float(logits[position].double().log_softmax(-1)[token])
    return total


def test_the_metrics_are_those_made_by_hand() -> None:
    batch = with_texts("one two", "", "")
    module = make_grpo(None, Accuracy(floor=-1.0))
    by_hand = [log_prob(module, batch, i) for i in range(3)]
    fit(module, [batch])

    metrics = module.step_metrics
    assert metrics["reference_logprob"] == pytest.approx(sum(by_hand) / 3, abs=1e-4)
    empty = [math.exp(value) for value in by_hand[1:]]
    assert metrics["empty_answer_probability"] == pytest.approx(sum(empty) / 2, rel=1e-4)
    # An accuracy of 1 is the right text.
    assert module.last_step is not None
    wrong = [group.max() < 1 for group in module.last_step.scores.total]
    assert metrics["nothing_right_share"] == pytest.approx(sum(wrong) / 3)


def test_temperature_is_that_of_the_samples() -> None:
    batch = with_texts("", "", "")
    hot = make_grpo(
        None, Accuracy(), decoding=replace(make_grpo().sampler.decoding, temperature=2.0)
    )
    cold = make_grpo(None, Accuracy())
    fit(hot, [batch])
    fit(cold, [batch])
    assert hot.step_metrics["reference_logprob"] != cold.step_metrics["reference_logprob"]


def test_measuring_changes_nothing_else() -> None:
    """Each draw, weight and metric bit for bit, and the cost is none where it is switched off."""
    runs = {}
    for every in (0, 1):
        module = make_grpo(
            None, Accuracy(floor=-1.0), num_steps=3, reference_logprob_every_n_steps=every
        )
        recorder = fit(module)
        runs[every] = (trainable(module.policy), recorder.metrics)

    off, on = runs[0], runs[1]
    for name, weight in off[0].items():
        assert torch.equal(weight, on[0][name]), name
    for without, measured in zip(off[1], on[1], strict=True):
        new = set(measured) - set(without)
        assert new == {"reference_logprob"}
        for key in without:
            if not key.startswith("seconds/"):
                assert measured[key] == without[key] or math.isnan(without[key]), key


@pytest.mark.parametrize(
    ("every", "log_every", "steps"),
    [(1, 1, [1, 2, 3, 4]), (3, 1, [1, 3]), (2, 2, [2, 4]), (3, 2, [2, 4]), (0, 1, [])],
)
def test_only_steps_that_are_logged_are_measured(
    every: int, log_every: int, steps: list[int]
) -> None:
    module = make_grpo(
        None,
        Accuracy(),
        num_steps=4,
        log_every_n_steps=log_every,
        reference_logprob_every_n_steps=every,
    )
    recorder = fit(module)
    found = [i + 1 for i, one in enumerate(recorder.metrics) if "reference_logprob" in one]
    assert found == steps
    assert all("nothing_right_share" in one for one in recorder.metrics)


def test_a_text_that_cannot_be_written_is_left_out() -> None:
    batch = with_texts("one", "unheard of", "two")
    module = make_grpo(None, Accuracy())
    by_hand = [log_prob(module, batch, i) for i in (0, 2)]
    fit(module, [batch])
    assert module.step_metrics["reference_logprob"] == pytest.approx(sum(by_hand) / 2, abs=1e-4)
    assert "empty_answer_probability" not in module.step_metrics


def test_only_rewards_that_compare_texts_say_what_is_right() -> None:
    """A judge is not asked once more, and what a reward fails on is not judged."""
    asked = []

    def answer(text: str) -> float:
        asked.append(text)
        return 0.0

    module = make_grpo(None, Judge(answer))
    fit(module)
    assert len(asked) == 3 * 4
    assert "nothing_right_share" not in module.step_metrics

    class Fails(TextReward):
        def score_one(self, hypothesis: Any) -> float:
            if hypothesis.row.id == "a":
                raise RuntimeError("no")
            return float(hypothesis.text == hypothesis.row.text)

    batch = with_texts("one", "two", "")
    scores = Scores(
        torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
        torch.tensor([[True, True], [False, True], [True, True]]),
        {"fails": torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])},
    )
    found = nothing_right(scores, batch.rows, [Fails(1.0, "fails"), Judge(answer)])
    assert found is not None
    # The only right sample of the second group is invalid.
    assert found[0].tolist() == [False, True, False]
    assert found[1].tolist() == [False, True, True]


class NeverRight(TextReward):
    """1 for the reference itself, which was not sampled and so has no tokens, 0 for any sample."""

    def score_one(self, hypothesis: Any) -> float:
        return float(hypothesis.num_tokens == 0)


def run_steps(caplog: pytest.LogCaptureFixture, **settings: Any) -> tuple[GRPO, list[str]]:
    """Eleven steps, two rows without text in each, of which no sample is ever right."""
    module = make_grpo(
        None,
        NeverRight(1.0, "never"),
        num_steps=11,
        optim=Optim(lr=1e-9),
        **settings,
    )
    with caplog.at_level(logging.WARNING, logger="lightning_audiorl.engine.rarely_right"):
        fit(module, [with_texts("", "one", "")] * 11)
    return module, [record.getMessage() for record in caplog.records if "rarely" in record.message]


def test_the_warning_names_the_rows_and_the_settings(caplog: pytest.LogCaptureFixture) -> None:
    module, said = run_steps(caplog)
    assert len(said) == 1
    assert "of 'rows without text' (67 % of the rows drawn) 100 % of 20 groups" in said[0]
    for name in ("reference_sample", "sft_weight", "CrossEntropy", "log-probability is -"):
        assert name in said[0]
    assert module.rarely_right.alerts == [{"rl_step": 10, "text": said[0].partition(": ")[2]}]


def test_nothing_is_said_where_it_is_mended(caplog: pytest.LogCaptureFixture) -> None:
    module, said = run_steps(caplog, reference_sample=ReferenceSample())
    assert not said
    assert module.step_metrics["nothing_right_share"] > 0


def test_a_resumed_run_knows_its_last_steps(caplog: pytest.LogCaptureFixture) -> None:
    module, _ = run_steps(caplog)
    state = module.rarely_right.state_dict()
    again = RarelyRight(module)
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert again.rarely_right() == module.rarely_right.rarely_right()
    assert again.rarely_right() is not None


def test_the_preset_is_the_two_losses_written_out() -> None:
    schedule = Schedule(0.5, 0.0, "linear", steps=4)
    preset = make_grpo(None, Judge(), num_steps=2, sft_weight=schedule)
    found = fit(preset)

    written_out = RLModule(
        make_policy(),
        2,
        losses=[PolicyGradient(beta=0.1), CrossEntropy()],
        combiner=WeightedGradients(schedule),
        rewards=RewardMix([Judge()]),
        sampler=Sampler(4, SHORT),
        optim=Optim(lr=1e-3, max_grad_norm=0.0),
    )
    fit(written_out)
    for name, weight in trainable(written_out.policy).items():
        assert torch.equal(weight, trainable(preset.policy)[name]), name
    assert [one["sft/weight"] for one in found.metrics] == [0.5, 0.375]
    assert preset.rarely_right.is_remedied
