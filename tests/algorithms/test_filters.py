from __future__ import annotations

import pytest
import torch

from lightning_audiorl.algorithms import Finished, MeanRewardBetween, MinRewardSpread, SampleFilter
from lightning_audiorl.types import Rollout, Scores
from tests.algorithms.tiny import Judge, fit, make_grpo, make_policy

NAN = float("nan")
TOTAL = torch.tensor([[0.0, 1.0, NAN], [0.5, 0.5, 0.5], [-9.0, 2.0, 2.0]])
VALID = ~TOTAL.isnan() & (TOTAL != -9.0)
SCORES = Scores(TOTAL, VALID, {})
FINISHED = torch.tensor([[True, False, True], [True, True, True], [False, True, True]])
ROLLOUT = Rollout(
    torch.zeros(3, 3, 1, dtype=torch.long),
    torch.ones(3, 3, 1, dtype=torch.bool),
    torch.zeros(3, 3, 1),
    FINISHED,
)


@pytest.mark.parametrize(
    ("rule", "groups"),
    [
        (MeanRewardBetween(), [True, True, True]),
        (MeanRewardBetween(low=0.6), [False, False, True]),
        (MeanRewardBetween(high=0.5), [True, True, False]),
        (MeanRewardBetween(low=0.5, high=0.5), [True, True, False]),
        (MinRewardSpread(), [True, False, False]),
        (MinRewardSpread(1.0), [True, False, False]),
        (MinRewardSpread(1.1), [False, False, False]),
    ],
)
def test_group_filters_see_valid_samples_only(rule: SampleFilter, groups: list[bool]) -> None:
    keep = rule.keep(SCORES, ROLLOUT)
    assert keep.dtype == torch.bool
    assert keep.tolist() == [[keeps] * 3 for keeps in groups]


def test_finished() -> None:
    assert torch.equal(Finished().keep(SCORES, ROLLOUT), FINISHED)


def test_filters_in_a_step() -> None:
    """What each takes out is counted by name, and only once; the loss sees the rest."""
    judge = Judge(lambda text: len(text) % 5)
    module = make_grpo(
        make_policy(), judge, group_size=6, filters=[Finished(), MinRewardSpread(2.0), Finished()]
    )
    metrics = fit(module).metrics[0]
    step = module.last_step
    assert step is not None
    finished = step.rollout.finished
    narrow = (step.scores.total.amax(-1) - step.scores.total.amin(-1) < 2)[:, None]
    stays = finished & ~narrow
    assert 0 < int((~finished).sum()) < finished.numel()
    assert metrics["dropped/Finished"] == int((~finished).sum())
    assert metrics["dropped/MinRewardSpread"] == int((finished & narrow).sum())
    assert torch.equal(step.advantages.used, stays & (stays.sum(-1, keepdim=True) >= 2))
    assert metrics["used_share"] == pytest.approx(float(step.advantages.used.float().mean()))
    assert metrics["invalid_share"] == 0


def test_two_filters_of_one_kind_are_counted_together() -> None:
    module = make_grpo(filters=[MeanRewardBetween(low=1e9), MeanRewardBetween(low=1e9)])
    metrics = fit(module).metrics[0]
    assert metrics["dropped/MeanRewardBetween"] == 12
    assert metrics["used_share"] == 0
    assert metrics["skipped_updates"] == 1
