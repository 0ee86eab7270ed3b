"""What rewards may give, and what becomes of those that give something else, hang, or end the process."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
import torch

from lightning_audiorl.ops import group_advantages
from lightning_audiorl.rewards import Reward, RewardError, RewardMix
from lightning_audiorl.types import Hypothesis, Scores
from tests.rewards.test_mix import GROUPS, Answer, Custom, valued


class Unshowable(float):
    """A number that is none, and that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.fault(
    "Numbers that are none",
    "a reward that gives a whole number of 400 or 5,000 digits, a fraction of such, or what cannot be shown",
    "the sample is invalid and counted under the reward's name; the others keep their values",
)
@pytest.mark.parametrize(
    "bad",
    [10**400, -(10**400), 10**5000, Fraction(10**400), 3e38, -3e38, 1e8, Unshowable(math.nan)],
    ids=["400 digits", "-400", "5000 digits", "fraction", "3e38", "-3e38", "1e8", "unshowable"],
)
def test_a_value_too_large_is_a_failure(bad: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        scores = RewardMix([valued([0.5, bad, 1, 2.0])]).score(GROUPS)
    assert scores.valid.tolist() == [[True, False], [True, True]]
    assert scores.total[scores.valid].tolist() == [0.5, 1.0, 2.0]
    assert scores.failures == {"custom": 1}
    (record,) = caplog.records
    assert "reward 'custom'" in record.getMessage()
    assert len(record.getMessage()) < 300


@pytest.mark.fault(
    "Numbers that are none",
    "rewards so large that float32 totals overflow or lose what tells samples apart",
    "they are refused by name, instead of updates that are all skipped or learn from nothing",
)
@pytest.mark.parametrize("value", [3e38, 1e8])
def test_large_values_on_all_samples_end_the_run(value: float) -> None:
    values = [value, -value, value + 1, value]
    with pytest.raises(RewardError, match=r"'custom' .*all 4 samples.*within 1,000,000"):
        RewardMix([valued(values)]).score(GROUPS)


@pytest.mark.parametrize("weight", [math.nan, math.inf, -1.0, 2e6])
def test_a_weight_is_within_a_million(weight: float) -> None:
    with pytest.raises(ValueError, match=r"Custom\.weight: .*at least 0 and at most 1000000"):
        Custom(lambda hypotheses: [], weight)
    late = Custom(lambda hypotheses: [])
    late.weight = weight
    with pytest.raises(ValueError, match="weight of reward 'custom'"):
        RewardMix([late])


def test_values_within_a_million_are_told_apart() -> None:
    values = [1e6 - 0.25, 1e6 - 0.5, -1e6, 1e6]
    scores = RewardMix([valued(values)]).score(GROUPS)
    assert scores.total.flatten().tolist() == values
    advantages = group_advantages(scores.total, scores.valid, "centred").values
    assert advantages[0].tolist() == [0.125, -0.125]


def test_true_and_false_are_numbers() -> None:
    assert RewardMix([valued([True, False, True, 0])]).score(GROUPS).total.sum() == 2


@pytest.mark.fault(
    "Numbers that are none",
    "a reward of weight 0 that fails on every sample of a step",
    "it is counted and said, and the run goes on",
)
def test_a_watched_reward_that_always_fails_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    def broken(hypotheses: Sequence[Hypothesis]) -> list[float]:
        raise KeyError("no judge")

    mix = RewardMix([valued([1.0, 2.0, 3.0, 4.0]), Custom(broken, weight=0.0, name="watched")])
    with caplog.at_level(logging.WARNING):
        scores = mix.score(GROUPS)
    assert scores.valid.all()
    assert scores.failures == {"custom": 0, "watched": 4}
    assert "watched" in caplog.text
    assert "weight is 0" in caplog.text


@pytest.mark.fault(
    "Settings and messages",
    "a reward that calls exit(0)",
    "the run ends with an error that names the reward, not with exit code 0",
)
@pytest.mark.parametrize("error", [SystemExit(0), SystemExit(None), GeneratorExit()])
@pytest.mark.parametrize("timeout_s", [None, 30.0])
def test_a_reward_that_exits_is_an_error(error: BaseException, timeout_s: float | None) -> None:
    settings = {} if timeout_s is None else {"timeout_s": timeout_s}
    with pytest.raises(RewardError, match=r"reward 'custom' \(Custom\) ended the process"):
        RewardMix([Custom(raising(error))], **settings).score(GROUPS)


@pytest.mark.parametrize("timeout_s", [None, 30.0])
def test_an_interrupt_in_a_reward_is_one_of_the_run(timeout_s: float | None) -> None:
    with pytest.raises(KeyboardInterrupt):
        RewardMix([Custom(raising(KeyboardInterrupt()))], timeout_s=timeout_s).score(GROUPS)


def raising(error: BaseException) -> Answer:
    def answer(hypotheses: Sequence[Hypothesis]) -> list[float]:
        raise error

    return answer


@pytest.mark.fault(
    "Settings and messages",
    "a reward that hangs, with a timeout set",
    "the run ends with an error that names the reward and the step, and the process ends too",
)
@pytest.mark.timeout(20)
def test_a_reward_that_hangs_ends_the_run() -> None:
    forever = threading.Event()
    hung: list[threading.Thread] = []

    def hang(hypotheses: Sequence[Hypothesis]) -> list[float]:
        hung.append(threading.current_thread())
        forever.wait(3)
        return [0.0] * len(hypotheses)

    mix = RewardMix([valued([1.0] * 4), Custom(hang, name="slow")])
    mix.timeout_s = 0.2
    start_s = time.monotonic()
    with pytest.raises(RewardError, match=r"reward 'slow' .*within 0\.2 s"):
        mix.score(GROUPS)
    assert time.monotonic() - start_s < 2
    # Python waits at its end for all threads but such ones.
    assert hung[0].daemon
    forever.set()
    forever.clear()

    with pytest.raises(RewardError, match=r"reward 'slow' .*RL step 7"):
        mix.score(GROUPS, None, 7)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, math.nan, math.inf])
def test_a_timeout_is_a_time(timeout_s: float) -> None:
    with pytest.raises(ValueError, match=r"RewardMix\.timeout_s: want a finite number above 0"):
        RewardMix([valued([])], timeout_s=timeout_s)


class Dtypes(Reward):
    """Computes where autocast and gradients decide what comes out."""

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        weight = torch.full((2, 2), 1 / 3, requires_grad=True)
        product = weight @ weight
        assert product.requires_grad == torch.is_grad_enabled()
        return [float(product.sum()), float(product.dtype == torch.bfloat16), 0.0, 0.0]


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
def test_a_timeout_changes_no_value(grad: bool, autocast: bool) -> None:
    def score(timeout_s: float | None) -> Scores:
        mix = RewardMix([Dtypes(1.0, "dtypes")], timeout_s=timeout_s)
        with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16, autocast):
            return mix.score(GROUPS)

    plain = score(None)
    assert plain.total.equal(score(30.0).total)
    assert bool(plain.total[0, 1]) == autocast


def test_an_error_in_time_is_that_of_the_reward() -> None:
    """Also one of its own that says that something took too long."""
    mix = RewardMix(
        [valued([1.0] * 4), Custom(raising(TimeoutError("server")), 0.0, "b")], timeout_s=9
    )
    assert mix.score(GROUPS).failures == {"custom": 0, "b": 4}
