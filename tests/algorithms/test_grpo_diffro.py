from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_audiorl.algorithms import (
    GRPO,
    DiffRO,
    GRPODiffRO,
    LengthRange,
    NoRepetition,
    PositiveAdvantage,
    RewardVariance,
    StopEmitted,
    TopShare,
)
from lightning_audiorl.losses.combine import compare, put_sum, take_gradients
from lightning_audiorl.losses.diffro.filters import Candidates, DiffroFilter
from lightning_audiorl.models import Finetune
from lightning_audiorl.ops import Schedule, group_advantages
from lightning_audiorl.rewards import RewardMix
from lightning_audiorl.strategies import PhaseSingleDevice
from lightning_audiorl.types import Rollout, Scores, Utterance
from tests.algorithms.speaking import SHORT, Codes, make_batch, make_module
from tests.algorithms.tiny import Recorder, fit
from tests.helpers import assert_close, assert_gradients_close
from tests.models.families import make


def run(num_steps: int = 1, trainer: dict[str, Any] | None = None, **settings: Any) -> Recorder:
    policy = make("speech_lm")
    module = make_module(GRPODiffRO, policy, num_steps=num_steps, **{"beta": 0.1} | settings)
    return fit(module, [make_batch(), make_batch("def")][:num_steps], **(trainer or {}))


def run_grpo() -> Recorder:
    module = GRPO(
        make("speech_lm"),
        1,
        optim=make_module().optim,
        rewards=RewardMix([Codes()]),
        group_size=4,
        decoding=SHORT,
        beta=0.1,
    )
    return fit(module, [make_batch()])


@pytest.fixture(scope="module")
def grpo() -> Recorder:
    return run_grpo()


@pytest.fixture(scope="module")
def both() -> Recorder:
    """The two losses at weights 1 : 1, over two steps."""
    return run(2)


def test_gradients_add_up(grpo: Recorder, both: Recorder) -> None:
    """GRPO's own, and DiffRO's own of the samples with positive advantage, from the same rollout."""
    module = make_module(
        DiffRO,
        make("speech_lm"),
        beta=0.0,
        rewards=RewardMix([Codes()]),
        diffro_filters=[PositiveAdvantage()],
    )
    diffro = fit(module, [make_batch()])
    assert_gradients_close(both.gradient(), grpo.gradient() + diffro.gradient())
    figures = both.metrics[0]
    one, other = grpo.gradient().norm(), diffro.gradient().norm()
    assert figures["grad_norm/grpo"] == pytest.approx(float(one), rel=1e-5)
    assert figures["grad_norm/diffro"] == pytest.approx(float(other), rel=1e-5)
    assert figures["grad_cosine"] == pytest.approx(
        float(grpo.gradient() @ diffro.gradient() / (one * other)), abs=1e-5
    )
    assert figures["diffro_share"] == pytest.approx(float(other / (one + other)), rel=1e-5)
    assert figures["kl"] == 0
    assert figures["diffro/used_share"] == diffro.metrics[0]["used_share"]


def test_weight_follows_its_schedule(grpo: Recorder, both: Recorder) -> None:
    recorder = run(2, diffro_weight=Schedule(0.5, 0.0, "linear"))
    assert [metrics["diffro/weight"] for metrics in recorder.metrics] == [0.5, 0.25]
    expected = (grpo.gradient() + both.gradient()) / 2
    assert_gradients_close(recorder.gradient(), expected)


def test_normalised_weight_is_a_ratio_of_norms(grpo: Recorder) -> None:
    recorder = run(diffro_weight=0.25, normalise=True)
    own = recorder.gradient() - grpo.gradient()
    assert float(own.norm() / grpo.gradient().norm()) == pytest.approx(0.25, rel=1e-3)
    assert recorder.metrics[0]["diffro_share"] == pytest.approx(0.2, rel=1e-6)


def test_a_step_in_which_nothing_is_kept_is_a_step_of_grpo(grpo: Recorder) -> None:
    recorder = run(diffro_filters=[LengthRange(low=999)])
    assert_close(recorder.gradient(), grpo.gradient(), "exact")
    figures = recorder.metrics[0]
    assert figures["dropped/diffro/LengthRange"] == 12
    assert (
        figures["diffro_share"] == figures["grad_norm/diffro"] == figures["diffro/used_share"] == 0
    )
    assert math.isnan(figures["grad_cosine"])
    assert figures["skipped_updates"] == 0


def test_a_gradient_that_is_not_finite_is_left_out(grpo: Recorder) -> None:
    from tests.algorithms.speaking import make_mix

    mix = make_mix()
    with torch.no_grad():
        mix.network.write.weight.fill_(math.nan)
    recorder = run(differentiable=mix)
    assert_close(recorder.gradient(), grpo.gradient(), "exact")
    assert recorder.metrics[0]["diffro/skipped"] == 1


@pytest.mark.parametrize("how", ["micro", "offload"])
def test_cutting_and_parking_change_nothing(both: Recorder, how: str) -> None:
    settings: dict[str, Any] = {"micro": {"micro_batch_size": 1}, "offload": {}}[how]
    trainer = {"strategy": PhaseSingleDevice()} if how == "offload" else {}
    again = run(2, trainer, **settings)
    for step in range(2):
        assert_gradients_close(
            again.gradient(step), both.gradient(step), 1e-4 if how == "micro" else 0.0
        )
        assert again.metrics[step]["grad_norm/diffro"] == pytest.approx(
            both.metrics[step]["grad_norm/diffro"], rel=1e-4
        )


def test_inner_updates_and_kl_of_its_own() -> None:
    recorder = run(1, num_updates=2, diffro_beta=0.5, beta=0.0)
    assert len(recorder.gradients) == 2
    assert recorder.metrics[0]["diffro/kl"] > 0  # of the second update
    lora = make("speech_lm", "lora")
    assert isinstance(lora.finetune, Finetune)  # type: ignore[attr-defined]
    recorder = fit(make_module(GRPODiffRO, lora, diffro_beta=0.5), [make_batch()])
    assert recorder.metrics[0]["diffro/kl"] == 0


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="diffro_beta >= 0"):
        make_module(GRPODiffRO, diffro_beta=-1.0)


# --- filters


def candidates(
    codes: list[list[list[int]]], rewards: list[list[float]], finished: list[list[bool]]
) -> Candidates:
    """Samples of which -1 is padding."""
    tokens = torch.tensor(codes)
    rollout = Rollout(
        tokens.clamp(min=0), tokens >= 0, torch.zeros(tokens.shape), torch.tensor(finished)
    )
    total = torch.tensor(rewards)
    valid = ~total.isnan()
    scores = Scores(total, valid, {})
    rows = tuple(Utterance(str(i), (), "ab", 1.0) for i in range(len(codes)))
    return Candidates(rows, rollout, tokens, scores, group_advantages(total, valid))


LOOPS = [[[1, 2, 1, 2, 1, 2], [3, 3, 3, 3, 4, 5], [1, 2, 3, 4, 5, 6], [7, 8, -1, -1, -1, -1]]]
SAMPLES = candidates(LOOPS, [[0.0, 1.0, 3.0, math.nan]], [[True, False, True, True]])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (PositiveAdvantage(), [0, 0, 1, 0]),
        (PositiveAdvantage(-0.5), [0, 1, 1, 0]),
        (RewardVariance(1.0), [1, 1, 1, 1]),
        (RewardVariance(2.0), [0, 0, 0, 0]),
        (StopEmitted(), [1, 0, 1, 1]),
        (LengthRange(3), [1, 1, 1, 0]),
        (LengthRange(0, 2.9, "characters"), [0, 0, 0, 1]),
        (LengthRange(0.5, 2.0, "median"), [1, 1, 1, 0]),
        (NoRepetition(1, 2), [1, 0, 1, 1]),
        (NoRepetition(1, 3), [1, 1, 1, 1]),
        (NoRepetition(2, 3), [0, 1, 1, 1]),
        (NoRepetition(8, 4), [1, 1, 1, 1]),
        (TopShare(0.5), [0, 1, 1, 0]),
        (TopShare(0.1), [0, 0, 1, 0]),
    ],
)
def test_filters(rule: DiffroFilter, expected: list[int]) -> None:
    assert rule.keep(SAMPLES).int().tolist() == [expected]


def test_bad_filters() -> None:
    for make_bad in (lambda: LengthRange(3, 2), lambda: NoRepetition(0), lambda: TopShare(0.0)):
        with pytest.raises(ValueError, match="want"):
            make_bad()


# --- gradients side by side


def test_gradients_are_taken_compared_and_put_back() -> None:
    parameters = [
        nn.Parameter(torch.zeros(2)),
        nn.Parameter(torch.zeros(1)),
        nn.Parameter(torch.zeros(1)),
    ]

    def take(*values: list[float] | None) -> list[Tensor | None]:
        for p, value in zip(parameters, values, strict=True):
            p.grad = None if value is None else torch.tensor(value)
        return take_gradients(parameters)

    first, second = take([3.0, 0.0], [4.0], None), take([1.0, 0.0], None, [0.0])
    assert all(p.grad is None for p in parameters)
    measured = compare(first, second)
    assert (measured.first, measured.second) == (5.0, 1.0)
    assert measured.cosine == pytest.approx(0.6)
    put_sum(parameters, first, second, 2.0)
    assert [None if p.grad is None else p.grad.tolist() for p in parameters] == [
        [5.0, 0.0],
        [4.0],
        [0.0],
    ]
    assert math.isnan(compare(first, [None] * 3).cosine)
