from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch

from lightning_audiorl.rewards import (
    PredictedQuality,
    Reward,
    RewardError,
    RewardMix,
    SpeakerSimilarity,
    SpeechAccuracy,
)
from lightning_audiorl.types import Hypothesis, Utterance
from tests.judges.fakes import FakeEncoder, FakeJudge, heard, said, sounding
from tests.judges.test_quality import Loudness


def accuracy_of(transcript: str, text: str = "one two", lang: str = "en", **settings: Any) -> float:
    (value,) = SpeechAccuracy(FakeJudge([transcript]), **settings).score([said(text, lang=lang)])
    return value


@pytest.mark.parametrize(
    ("form", "one_wrong", "all_right"),
    [
        ("linear", 1 - 1 / 6, 1.0),
        ("tanh", 1 - math.tanh(0.5), 1.0),
        ("exp", math.exp(-2.5 / 6), 1.0),
    ],
)
def test_forms(form: Any, one_wrong: float, all_right: float) -> None:
    """ "one two" has 6 characters to hear: spaces are not among them."""
    assert accuracy_of("One  twx!", form=form) == pytest.approx(one_wrong)
    assert accuracy_of("onetwo", form=form) == pytest.approx(all_right)
    assert accuracy_of("one twx", form=form, scale=0.5) == pytest.approx(
        {"linear": 1 - 0.5 / 6, "tanh": 1 - math.tanh(0.5 / 6), "exp": math.exp(-0.5 / 6)}[form]
    )


def test_units() -> None:
    assert accuracy_of("one twx") == pytest.approx(1 - 1 / 6)
    assert accuracy_of("one twx", unit="language") == pytest.approx(0.5)
    assert accuracy_of("你好嗎", "你好吗", lang="zh", unit="language") == pytest.approx(2 / 3)


@pytest.mark.parametrize("settings", [{}, {"form": "tanh"}, {"form": "exp"}, {"floor": -1.0}])
def test_nothing_heard_is_the_worst(settings: dict[str, Any]) -> None:
    """Worse than any babble, however long, and the same whether nothing was heard or nothing was said."""
    judge = FakeJudge(["", "seven " * 40, "one", "<unk>"])
    reward = SpeechAccuracy(judge, **settings)
    silent, babble, half, noise, nothing = reward.score(
        [*(said(value=heard(i)) for i in range(4)), said(num_codes=0)]
    )
    assert silent == noise == nothing == reward.range[0] == settings.get("floor", 0.0)
    assert silent <= babble < half < 1.0


@pytest.mark.parametrize(
    ("form", "two_inserted"), [("linear", 0.0), ("tanh", 1 - math.tanh(6)), ("exp", math.exp(-5))]
)
def test_empty_reference(form: Any, two_inserted: float) -> None:
    assert accuracy_of("ab", "...", form=form) == pytest.approx(two_inserted)
    assert accuracy_of("", "...", form=form) == 1.0


def test_a_failed_judgement_is_excluded_and_counted() -> None:
    judge = FakeJudge(["one two", RuntimeError("broken"), None])
    group = [said(value=heard(i)) for i in (0, 1, 2, 0)]
    scores = RewardMix([SpeechAccuracy(judge)]).score([group])
    assert scores.valid.tolist() == [[True, False, False, True]]
    assert scores.failures == {"speech_accuracy": 2}
    assert scores.parts["speech_accuracy"].isnan().tolist() == [[False, True, True, False]]


def test_a_judge_that_returns_nothing_stops_the_run() -> None:
    with pytest.raises(RewardError, match="failed on all 2 samples of a step"):
        RewardMix([SpeechAccuracy(FakeJudge([None]))]).score([[said(), said()]])


def test_a_policy_that_does_not_speak_stops_the_run() -> None:
    text = [Hypothesis(Utterance("r1", (), "one", 1.0), "one") for _ in range(2)]
    for reward in (SpeechAccuracy(FakeJudge(["one"])), SpeakerSimilarity(FakeEncoder())):
        with pytest.raises(RewardError, match="row 'r1' is text; use it with a policy that speaks"):
            RewardMix([reward]).score([text])


def test_two_rewards_of_one_judge_listen_once() -> None:
    judge = FakeJudge(["one two"])
    mix = RewardMix(
        [SpeechAccuracy(judge), SpeechAccuracy(judge, form="exp", weight=0.0, name="bounded")]
    )
    mix.score([[said(), said()]])
    assert judge.calls == [2]


def test_the_judge_is_found_among_the_attributes() -> None:
    """`SamplingModule.parts` places what it finds so."""
    judge, encoder = FakeJudge(["one"]), FakeEncoder()
    assert judge in vars(SpeechAccuracy(judge)).values()
    assert encoder in vars(SpeakerSimilarity(encoder)).values()


def test_similarity_to_the_prompt() -> None:
    prompt = sounding(0.5, 400)
    reward = SpeakerSimilarity(FakeEncoder(broken_at=2.0))
    samples = [said(value=v, prompt=prompt) for v in (0.5, 1.0, 2.0)] + [
        said(num_codes=0, prompt=prompt)
    ]
    same, other, failed, silent = reward.score(samples)
    assert same == pytest.approx(1.0)
    assert other == pytest.approx(math.cos(0.5))
    assert math.isnan(failed)
    assert silent == -1.0 == reward.range[0]


def test_similarity_without_a_prompt_is_a_failure_that_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    prompt = sounding(0.5, 400)
    mix = RewardMix([SpeakerSimilarity(FakeEncoder())])
    with caplog.at_level(logging.WARNING):
        scores = mix.score(
            [[said(prompt=prompt), said(prompt=prompt)], [said(id="lonely"), said(id="lonely")]]
        )
    assert scores.valid.tolist() == [[True, True], [False, False]]
    assert "row 'lonely' has no speaker prompt" in caplog.text
    with pytest.raises(RewardError, match="failed on all 2 samples"):
        mix.score([[said(), said(prompt=torch.zeros(0))]])


def test_changing_a_prompt_changes_its_own_group_only() -> None:
    first, second, third = (sounding(value, 400) for value in (0.1, 0.2, 0.9))
    reward = SpeakerSimilarity(FakeEncoder())
    before = reward.score(
        [said(prompt=first), said(prompt=first), said(prompt=second), said(prompt=second)]
    )
    after = reward.score(
        [said(prompt=first), said(prompt=first), said(prompt=third), said(prompt=third)]
    )
    assert before[:2] == after[:2]
    assert before[2] != after[2]


def test_predicted_quality_is_scaled_to_the_predictors_range() -> None:
    values = PredictedQuality(Loudness()).score(
        [said(value=0.5), said(value=0.0), said(num_codes=0), said(value=3.0)]
    )
    assert values[0] == pytest.approx(0.75)
    assert math.isnan(values[1])
    assert values[2:] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "cosine"}, "form must be one of linear, tanh, exp"),
        ({"unit": "word"}, "unit 'char' or 'language'"),
        ({"scale": 0.0}, "scale: expected a positive number"),
        ({"floor": 1.0}, "floor: below 1 for the linear form"),
        ({"form": "exp", "floor": -1.0}, "floor: below 1 for the linear form, 0 for the others"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpeechAccuracy(FakeJudge(["one"]), **settings)


def test_values_stay_in_range() -> None:
    prompt = sounding(0.5, 400)
    texts = ["", "one two", "two one two one two", "one"]
    samples = [said(value=heard(i), prompt=prompt) for i in range(4)] + [
        said(num_codes=0, prompt=prompt)
    ]
    rewards: list[Reward] = [
        SpeechAccuracy(FakeJudge(texts, name=f), form=f) for f in ("linear", "tanh", "exp")
    ]  # type: ignore[arg-type]
    for reward in [*rewards, SpeakerSimilarity(FakeEncoder())]:
        low, high = reward.range
        assert all(low <= value <= high for value in reward.score(samples))
