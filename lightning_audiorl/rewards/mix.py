"""A weighted sum of rewards that keeps its components, and takes failed samples out instead of inventing a value."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from itertools import chain, groupby
from numbers import Real
from typing import Literal

import torch
from torch import nn

from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.rewards.base import JudgedReward, Reward, RewardError
from lightning_audiorl.types import Hypothesis, Scores

_log = logging.getLogger(__name__)


class RewardMix:
    """Total reward of each sample: the sum of weight * reward.

    A sample that a reward cannot score (it raises, or gives NaN, infinity or no number) is marked invalid and counted;
    the other samples keep their values. A reward that returns the wrong number of values, or fails on every sample of
    a step, is a broken program: `RewardError`. A failing reward of weight 0 is counted but invalidates nothing.

    Rewards that name the same judge share it, and what it answers; see `judges.JudgePanel`.

    Args:
        rewards: the components; names must differ and some weight must be above 0.
        on_error: "exclude" as above; "raise" stops at the first sample that cannot be scored.

    Example:
        >>> from lightning_audiorl.rewards import Accuracy, LengthError
        >>> from lightning_audiorl.types import Utterance
        >>> row = Utterance("row", (), "one two", 1.0)
        >>> group = [Hypothesis(row, "one two"), Hypothesis(row, "one")]
        >>> scores = RewardMix([Accuracy(weight=1.0), LengthError(weight=0.5)]).score([group])
        >>> scores.total
        tensor([[1.0000, 0.2500]])
        >>> scores.parts
        {'accuracy': tensor([[1.0000, 0.5000]]), 'length_error': tensor([[-0.0000, -0.5000]])}
    """

    def __init__(
        self, rewards: list[Reward], on_error: Literal["exclude", "raise"] = "exclude"
    ) -> None:
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

        # Constructors check weights, but a weight may have been set since.
        for reward in rewards:
            if not math.isfinite(reward.weight) or reward.weight < 0:
                raise ValueError(
                    f"weight of reward '{reward.name}': expected a finite number >= 0, got {reward.weight}"
                )
        if not any(reward.weight for reward in rewards):
            raise ValueError(
                f"RewardMix.rewards: all weights of {names} are 0, so nothing would be learnt"
            )

        self.rewards = list(rewards)
        self.on_error = on_error
        self._warned: set[str] = set()

    def seat_judges(self, panel: JudgePanel) -> None:
        """Have every reward take its judges from a panel, the one that `score` is going to get.

        Raises:
            JudgeError: for a name that the panel does not know, or that two different judges have.
        """
        for reward in self.rewards:
            if isinstance(reward, JudgedReward):
                reward.seat_judges(panel)

    def judges(self) -> list[nn.Module]:
        """The models that the rewards judge with, each once."""
        held: dict[nn.Module, None] = {}
        for reward in self.rewards:
            held |= dict.fromkeys(reward.judges())
        return list(held)

    def score(
        self, groups: Sequence[Sequence[Hypothesis]], panel: JudgePanel | None = None
    ) -> Scores:
        """Score B groups of G hypotheses.

        Args:
            groups: the samples of each prompt.
            panel: whom the rewards ask about speech, and what is known of these samples; by default an own one.

        Raises:
            ValueError: when the groups differ in size or there are none.
            RewardError: when a reward is broken, or cannot score a sample and ``on_error`` is "raise".
        """
        sizes = sorted({len(group) for group in groups})
        if len(sizes) != 1 or sizes[0] == 0:
            raise ValueError(
                f"RewardMix.score: expected groups of one size >= 1, got sizes {sizes}"
            )
        # A reward sees all samples of a step in one list, so that a judge can hear them in full passes.
        flat = list(chain.from_iterable(groups))
        panel = panel or JudgePanel()

        shape = (len(groups), sizes[0])
        total = torch.zeros(shape, dtype=torch.float64)
        valid = torch.ones(shape, dtype=torch.bool)
        parts: dict[str, torch.Tensor] = {}
        failures: dict[str, int] = {}
        for reward in self.rewards:
            # In float64; the total is rounded to float32 once, at the end.
            values = self._values(reward, flat, panel)
            part = torch.tensor(values, dtype=torch.float64).reshape(shape)
            scored = ~part.isnan()

            # A reward of weight 0 is only watched: its failures take no sample out of the step.
            if reward.weight:
                total += reward.weight * torch.where(scored, part, 0.0)
                valid &= scored
            parts[reward.name] = part.float()
            failures[reward.name] = int((~scored).sum())
        return Scores(total.float(), valid, parts, failures)

    def _values(
        self,
        reward: Reward,
        flat: list[Hypothesis],
        panel: JudgePanel,
    ) -> list[float]:
        """One finite value per hypothesis; NaN where the reward failed."""
        answers = _attempt(reward, flat, panel)
        if isinstance(answers, Exception):
            # Some sample is at fault. Rewards may compare the samples of a row, so each row is tried by itself.
            self._report(reward, f"raised {answers!r}", answers)
            answers = []
            for _, samples in groupby(flat, key=lambda hypothesis: hypothesis.row.id):
                answers += _without_failing(reward, list(samples), panel)

        values = [_number(answer) for answer in answers]
        failed = [i for i, value in enumerate(values) if math.isnan(value)]
        if not failed:
            return values

        # The first of them says what is wrong; all of them would say the same over and over.
        first = answers[failed[0]]
        first_row = flat[failed[0]].row
        example = f"gave {first!r} for row '{first_row.id}'"
        self._report(reward, example)

        # A step without any sample left would be learnt from nothing, and silently.
        if len(failed) == len(flat):
            raise RewardError(
                f"reward '{reward.name}' ({type(reward).__name__}) failed on all {len(flat)} samples of a step; "
                f"it {example}. Expected a finite number per sample: mend the reward or take it out of the mix"
            ) from (first if isinstance(first, Exception) else None)
        return values

    def _report(
        self,
        reward: Reward,
        what: str,
        error: Exception | None = None,
    ) -> None:
        """Raise where ``on_error`` says so; otherwise warn, the first time."""
        if self.on_error == "raise":
            raise RewardError(f"reward '{reward.name}' ({type(reward).__name__}) {what}") from error
        if reward.name in self._warned:
            return
        self._warned.add(reward.name)
        _log.warning(
            "reward '%s' (%s) %s. Samples that it cannot score leave the step; "
            "the log counts them. This is said once per reward.",
            reward.name,
            type(reward).__name__,
            what,
        )


def _attempt(
    reward: Reward,
    hypotheses: list[Hypothesis],
    panel: JudgePanel,
) -> list[object] | Exception:
    """One answer per hypothesis, of whatever type; the exception where the reward raises one.

    Raises:
        RewardError: for a reward that is broken as a program: it returned no list, or one of another length.
    """
    try:
        answers: object = (
            reward.score_with(hypotheses, panel)
            if isinstance(reward, JudgedReward)
            else reward.score(hypotheses)
        )
    except RewardError:  # broken as a program: no sample is at fault
        raise
    except Exception as error:  # noqa: BLE001 - a user's reward may raise anything; it is logged or re-raised
        return error

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


def _without_failing(
    reward: Reward,
    group: list[Hypothesis],
    panel: JudgePanel,
) -> list[object]:
    """One answer per sample of a row, those that the reward fails on left out; their answer is its exception."""
    together = _attempt(reward, group, panel)
    if not isinstance(together, Exception):
        return together

    answers: list[object] = []
    sound = []
    for i, hypothesis in enumerate(group):
        alone = _attempt(reward, [hypothesis], panel)
        if isinstance(alone, Exception):
            answers.append(alone)
        else:
            answers.append(alone[0])
            sound.append(i)

    # The sound ones are scored together, since a reward may compare them. Where all are sound, the reward fails on
    # groups as such, and their values one by one are the best there is.
    if 0 < len(sound) < len(group):
        again = _attempt(reward, [group[i] for i in sound], panel)
        for place, i in enumerate(sound):
            answers[i] = again if isinstance(again, Exception) else again[place]
    return answers


def _number(answer: object) -> float:
    """The answer as a float; NaN when it is no number that is finite in float32.

    Example:
        >>> _number(1), _number("1"), _number(1e39)
        (1.0, nan, nan)
    """
    # Tensors and texts are no numbers, even where they could be read as one: the reward is at fault.
    if not isinstance(answer, Real):
        return math.nan
    value = float(answer)
    return value if abs(value) <= torch.finfo(torch.float32).max else math.nan
