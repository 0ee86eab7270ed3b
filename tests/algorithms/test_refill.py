"""Dynamic sampling: groups without reward variance give way to further prompts, bounded and counted."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from lightning_audiorl import ops
from lightning_audiorl.algorithms import GRPO
from lightning_audiorl.losses.sample_filters import MinRewardSpread
from lightning_audiorl.models import TextLMPolicy, WhisperPolicy
from lightning_audiorl.rewards import Reward
from lightning_audiorl.strategies import PhaseSingleDevice
from lightning_audiorl.types import Hypothesis, PromptBatch
from tests.algorithms.tiny import Recorder, fit, make_batch, make_grpo, make_policy, trainable
from tests.helpers import assert_close
from tests.models.families import SPECS, batch_of, finetune_of


class Picky(Reward):
    """The same for every sample of the prompts named in ``dull``, the number of letters for the others."""

    def __init__(self, dull: str) -> None:
        super().__init__(1.0, "picky")
        self.dull = dull

    def score(self, hypotheses: Any) -> list[float]:
        return [0.0 if h.row.id in self.dull else float(len(h.text)) for h in hypotheses]


class Stream(LightningDataModule):
    """One batch a b c at every step; refills are taken from ``further``, in order of the attempts."""

    def __init__(self, further: str, num_steps: int = 1) -> None:
        super().__init__()
        self.further, self.num_steps = further, num_steps
        self.asked: list[tuple[int, int, int]] = []

    def train_dataloader(self) -> DataLoader[PromptBatch]:
        return DataLoader([make_batch()] * self.num_steps, batch_size=None)  # type: ignore[arg-type]

    def refill(self, step: int, attempt: int, num_prompts: int) -> PromptBatch:
        used = sum(number for at, _, number in self.asked if at == step)
        self.asked.append((step, attempt, num_prompts))
        return make_batch([0.5] * num_prompts, self.further[used:])


def run(
    dull: str, further: str, max_refills: int, num_steps: int = 1, **settings: Any
) -> tuple[GRPO, Recorder, Stream]:
    module = make_grpo(
        make_policy(), Picky(dull), max_refills=max_refills, num_steps=num_steps, **settings
    )
    stream = Stream(further, num_steps)
    return module, fit(module, datamodule=stream), stream


def trained_on(module: GRPO) -> list[str]:
    assert module.last_step is not None
    return [group[0].row.id for group in module.last_step.groups]


def test_dull_groups_are_replaced() -> None:
    module, recorder, stream = run(dull="bcd", further="defg", max_refills=3)
    # b and c are dull; the first round brings d (dull) and e, the second f.
    assert stream.asked == [(0, 1, 2), (0, 2, 1)]
    assert trained_on(module) == ["a", "e", "f"]
    figures = {
        name.removeprefix("refill/"): n
        for name, n in recorder.metrics[0].items()
        if name.startswith("refill/")
    }
    assert figures == {"flat": 2, "prompts": 3, "taken": 2, "left": 0}
    assert recorder.metrics[0]["zero_variance_share"] == 0


@pytest.mark.parametrize("placement", ["offload", "auto"])
def test_parked_parts_change_nothing(placement: Any) -> None:
    """The contexts of the rounds are taken from where they are on the device."""
    settings: dict[str, Any] = {"dull": "bcd", "further": "defg", "max_refills": 3, "num_steps": 2}
    plain, recorder, _ = run(**settings)
    strategy = PhaseSingleDevice(
        placement=placement, budget_gb=1.0 if placement == "auto" else None
    )
    module = make_grpo(make_policy(), Picky("bcd"), max_refills=3, num_steps=2)
    parked = fit(module, datamodule=Stream("defg", 2), strategy=strategy)
    assert trained_on(module) == trained_on(plain)
    assert torch.equal(parked.gradient(), recorder.gradient())
    assert torch.equal(parked.gradient(1), recorder.gradient(1))


def test_refilling_is_bounded_and_what_is_left_stays() -> None:
    module, recorder, stream = run(dull="abcdefgh", further="defgh", max_refills=1)
    assert stream.asked == [(0, 1, 3)]
    assert trained_on(module) == ["a", "b", "c"]
    assert recorder.metrics[0]["refill/left"] == 3
    assert recorder.metrics[0]["zero_variance_share"] == 1


def test_nothing_is_asked_for_where_every_group_has_a_signal() -> None:
    _, recorder, stream = run(dull="", further="", max_refills=2)
    assert stream.asked == []
    assert recorder.metrics[0]["refill/prompts"] == 0
    plain = make_grpo(make_policy(), Picky(""))
    assert_close(recorder.gradient(), fit(plain).gradient(), "policy")


def test_a_refilled_step_learns_as_if_its_prompts_had_come_at_once() -> None:
    """Hypotheses are keyed by prompt, so a refilled batch and the same prompts in one batch are one and the same."""
    module, recorder, _ = run(
        dull="bc", further="de", max_refills=1, objective=ops.DAPO(), max_tokens=40
    )
    batch = make_batch((0.4, 0.5, 0.5), "ade")
    whole = make_grpo(make_policy(), Picky("bc"), objective=ops.DAPO(), max_tokens=40)
    expected = fit(whole, [batch])
    assert trained_on(module) == trained_on(whole) == ["a", "d", "e"]
    assert module.last_step is not None
    assert whole.last_step is not None
    assert torch.equal(module.last_step.rollout.tokens, whole.last_step.rollout.tokens)
    assert_close(recorder.gradient(), expected.gradient(), "policy")


def test_filters_decide_what_has_a_signal() -> None:
    """A group that a filter empties is as dull as one of equal rewards."""
    _, recorder, _ = run(dull="", further="defgh", max_refills=1, filters=[MinRewardSpread(1e6)])
    assert recorder.metrics[0]["refill/flat"] == 3
    assert recorder.metrics[0]["refill/left"] == 3


@pytest.mark.parametrize("family", ["fun_asr_nano", "whisper", "text_lm"])
def test_contexts_of_every_family_join(family: str) -> None:
    """Log-probs of prompts that were encoded apart and joined are those of prompts encoded together."""
    kinds: dict[str, Any] = {"whisper": WhisperPolicy, "text_lm": TextLMPolicy}
    policy = (
        kinds[family](SPECS[family], finetune_of(family, "all"))
        if family in kinds
        else make_policy()
    )
    batch = batch_of(list("abc"))
    with policy.evaluating(), torch.no_grad():
        whole = policy.encode(batch)
        parts = [policy.encode(batch.select(index)) for index in ([0, 1], [2])]
        joined = parts[0].join([parts[1]])
        assert len(joined) == len(whole) == 3
        assert joined.prompt_lengths == whole.prompt_lengths
        targets = policy.targets(whole, batch.texts)
        kept = targets.keep.flatten(0, 1)
        assert_close(
            policy.hidden(joined, targets)[kept], policy.hidden(whole, targets)[kept], "policy"
        )


@pytest.mark.fault(
    "Numbers that are none",
    "a reward that fails on some samples, while dynamic sampling replaces others",
    "each failure of the step's samples is counted once",
)
def test_a_failure_is_counted_once_whatever_is_replaced() -> None:
    class Failing(Picky):
        """Picky, and of each group the last sample has no score."""

        def score(self, hypotheses: Any) -> list[float]:
            values = super().score(hypotheses)
            return [math.nan if i % 4 == 3 else value for i, value in enumerate(values)]

    module = make_grpo(make_policy(), Failing("bcd"), max_refills=3)
    recorder = fit(module, datamodule=Stream("defg"))
    assert trained_on(module) == ["a", "e", "f"]
    assert recorder.metrics[0]["reward_failures/picky"] == 3
    assert recorder.metrics[0]["invalid_share"] == 0.25


def test_join_keeps_failures_and_parts() -> None:
    module, _, _ = run(dull="", further="", max_refills=1)
    step = module.last_step
    assert step is not None
    whole = step.samples
    back = whole.select([2]).join([whole.select([0, 1])])
    assert [group[0].row.id for group in back.groups] == ["c", "a", "b"]
    assert torch.equal(back.scores.total, step.scores.total[[2, 0, 1]])
    assert torch.equal(back.scores.parts["picky"], step.scores.parts["picky"][[2, 0, 1]])
    assert isinstance(back.groups[0][0], Hypothesis)
    longest = back.rollout.tokens.shape[-1]
    assert torch.equal(back.rollout.lengths, step.rollout.lengths[[2, 0, 1]])
    assert longest == int(step.rollout.lengths.max())


def test_two_runs_are_the_same_run() -> None:
    first, _, _ = run(dull="bd", further="defgh", max_refills=2, num_steps=2)
    second, _, _ = run(dull="bd", further="defgh", max_refills=2, num_steps=2)
    for name, value in trainable(first.policy).items():
        assert torch.equal(value, trainable(second.policy)[name])


def test_max_refills_wants_a_stream() -> None:
    with pytest.raises(ValueError, match=r"max_refills wants a data module with refill"):
        fit(make_grpo(max_refills=1))
    with pytest.raises(ValueError, match=r"max_refills >= 0"):
        make_grpo(max_refills=-1)
