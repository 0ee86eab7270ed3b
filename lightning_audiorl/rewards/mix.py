"""A weighted sum of rewards that keeps its parts, and takes failed samples out instead of inventing a value."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from itertools import groupby
from numbers import Real
from typing import Literal

import torch
from torch import nn

from lightning_audiorl.judges.sharing import shared
from lightning_audiorl.rewards.base import Reward, RewardError
from lightning_audiorl.types import Hypothesis, Scores

_log = logging.getLogger(__name__)


class RewardMix:
    """Total reward of each sample: the sum of weight * reward.

    A sample that a reward cannot score (it raises, or gives NaN, infinity or no number) is marked invalid and counted;
    the other samples keep their values. A reward that returns the wrong number of values, or fails on every sample of
    a step, is a broken program: `RewardError`. A failing reward of weight 0 is counted but invalidates nothing.

    Rewards that name the same judge share one instance of it; see `judges.shared`.

    Args:
        rewards: the parts; names must differ and some weight must be above 0.
        on_error: "exclude" as above; "raise" stops at the first sample that cannot be scored.
    """

    def __init__(self, rewards: list[Reward], on_error: Literal["exclude", "raise"] = "exclude") -> None:
        if not rewards:
            raise ValueError("RewardMix.rewards: expected at least one reward, got []")
        names = [reward.name for reward in rewards]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"RewardMix.rewards: names must differ, but {twice} come more than once; set init_args.name"
            )
        if on_error not in ("exclude", "raise"):
            raise ValueError(f"RewardMix.on_error: expected 'exclude' or 'raise', got {on_error!r}")
        for reward in rewards:
            if not math.isfinite(reward.weight) or reward.weight < 0:
                raise ValueError(
                    f"weight of reward '{reward.name}': expected a finite number >= 0, got {reward.weight}"
                )
        if not any(reward.weight for reward in rewards):
            raise ValueError(f"RewardMix.rewards: all weights of {names} are 0, so nothing would be learnt")
        self.rewards = list(rewards)
        for reward in self.rewards:
            for name, held in list(vars(reward).items()):
                if isinstance(held, nn.Module):
                    setattr(reward, name, shared(held, self.judges()))
        self.on_error = on_error
        self._warned: set[str] = set()

    def judges(self) -> list[nn.Module]:
        """The models that the rewards judge with, each once."""
        held = [value for reward in self.rewards for value in vars(reward).values() if isinstance(value, nn.Module)]
        return list(dict.fromkeys(held))

    def score(self, groups: Sequence[Sequence[Hypothesis]]) -> Scores:
        """Score B groups of G hypotheses.

        Raises:
            ValueError: when the groups differ in size or there are none.
            RewardError: when a reward is broken, or cannot score a sample and ``on_error`` is "raise".
        """
        sizes = sorted({len(group) for group in groups})
        if len(sizes) != 1 or sizes[0] == 0:
            raise ValueError(f"RewardMix.score: expected groups of one size >= 1, got sizes {sizes}")
        flat = [hypothesis for group in groups for hypothesis in group]
        shape = (len(groups), sizes[0])
        total = torch.zeros(shape, dtype=torch.float64)
        valid = torch.ones(shape, dtype=torch.bool)
        parts, failures = {}, {}
        for reward in self.rewards:
            part = torch.tensor(self._values(reward, flat), dtype=torch.float64).reshape(shape)
            scored = ~part.isnan()
            if reward.weight:
                total += reward.weight * torch.where(scored, part, 0.0)
                valid &= scored
            parts[reward.name] = part.float()
            failures[reward.name] = int((~scored).sum())
        return Scores(total.float(), valid, parts, failures)

    def _values(self, reward: Reward, flat: list[Hypothesis]) -> list[float]:
        """One finite value per hypothesis; NaN where the reward failed."""
        try:
            answers = _answers(reward, flat)
        except RewardError:
            raise
        except Exception as error:  # noqa: BLE001 - a user's reward may raise anything; it is logged or re-raised
            self._failed(reward, f"raised {error!r}", error)
            answers = self._group_by_group(reward, flat)
        values = [_number(answer) for answer in answers]
        bad = [i for i, value in enumerate(values) if math.isnan(value)]
        if bad:
            answer = answers[bad[0]]
            example = f"gave {answer!r} for row '{flat[bad[0]].row.id}'"
            self._failed(reward, example)
            if len(bad) == len(flat):
                raise RewardError(
                    f"reward '{reward.name}' ({type(reward).__name__}) failed on all {len(flat)} samples of a step; "
                    f"it {example}. Expected a finite number per sample: mend the reward or take it out of the mix"
                ) from (answer if isinstance(answer, Exception) else None)
        return values

    def _group_by_group(self, reward: Reward, flat: list[Hypothesis]) -> list[object]:
        """What the reward says of the samples of each row; the error where it raises."""
        groups = [list(group) for _, group in groupby(flat, key=lambda hypothesis: hypothesis.row.id)]
        return [answer for group in groups for answer in self._of_group(reward, group)]

    def _of_group(self, reward: Reward, group: list[Hypothesis]) -> list[object]:
        """Of all together; else of those together that it can score alone, since it may compare them.

        A reward that fails on the group, but on no sample alone, is asked one by one.
        """
        try:
            return _answers(reward, group)
        except RewardError:
            raise
        except Exception:  # noqa: BLE001 - as above; whose fault it is shows below
            answers = [self._together(reward, [hypothesis])[0] for hypothesis in group]
        rest = [i for i, answer in enumerate(answers) if not isinstance(answer, Exception)]
        if 0 < len(rest) < len(group):
            for i, answer in zip(rest, self._together(reward, [group[i] for i in rest]), strict=True):
                answers[i] = answer
        return answers

    def _together(self, reward: Reward, hypotheses: list[Hypothesis]) -> list[object]:
        try:
            return _answers(reward, hypotheses)
        except RewardError:
            raise
        except Exception as error:  # noqa: BLE001 - as above; it is kept as the answer of all
            return [error] * len(hypotheses)

    def _failed(self, reward: Reward, what: str, error: Exception | None = None) -> None:
        """Raise, or warn the first time."""
        if self.on_error == "raise":
            raise RewardError(f"reward '{reward.name}' ({type(reward).__name__}) {what}") from error
        if reward.name not in self._warned:
            self._warned.add(reward.name)
            _log.warning(
                "reward '%s' (%s) %s. Samples that it cannot score leave the step; "
                "the log counts them. This is said once per reward.",
                reward.name,
                type(reward).__name__,
                what,
            )


def _answers(reward: Reward, hypotheses: list[Hypothesis]) -> list[object]:
    """What the reward returned, checked to be one item per hypothesis."""
    answers: object = reward.score(hypotheses)
    kind = type(reward).__name__
    if not isinstance(answers, (list, tuple)):
        raise RewardError(
            f"reward '{reward.name}' ({kind}) returned {type(answers).__name__}; expected a list of "
            f"{len(hypotheses)} floats"
        )
    if len(answers) != len(hypotheses):
        raise RewardError(
            f"reward '{reward.name}' ({kind}) returned {len(answers)} values for {len(hypotheses)} hypotheses; "
            "expected one each, in order"
        )
    return list(answers)


def _number(answer: object) -> float:
    """The answer as a float; NaN when it is no number that is finite in float32."""
    if not isinstance(answer, Real):
        return math.nan
    value = float(answer)
    return value if abs(value) <= torch.finfo(torch.float32).max else math.nan
