"""A weighted sum of rewards that keeps its components, and takes failed samples out instead of inventing a value."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from itertools import chain, groupby
from numbers import Real
from typing import Any, Literal

import torch
from torch import nn

from lightning_audiorl.checks import check_number
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.rewards.base import LARGEST, JudgedReward, Reward, RewardError
from lightning_audiorl.rewards.timeout import TooLateError, within
from lightning_audiorl.types import Hypothesis, Scores

_log = logging.getLogger(__name__)


class RewardMix:
    """Total reward of each sample: the sum of weight * reward.

    A sample that a reward cannot score (it raises, or gives NaN, infinity, no number or one beyond a million) is marked
    invalid and counted; the other samples keep their values. A reward that returns the wrong number of values, calls
    ``exit``, or fails on every sample of a step, is a broken program: `RewardError`. A failing reward of weight 0 is
    counted, also on every sample, but invalidates nothing.

    Totals are float32, which tells 1,000,000.0 from 1,000,000.1 but not 100,000,000 from 100,000,001: values and
    weights have to be within a million. Bring a reward to the order of 1, and subtract what all samples have.

    Rewards that name the same judge share it, and what it answers; see `judges.JudgePanel`.

    Args:
        rewards: the components; names must differ and some weight must be above 0.
        on_error: "exclude" as above; "raise" stops at the first sample that cannot be scored.
        timeout_s: seconds that one call of a reward may take, for all samples of a step; then the run ends, naming it.
            The reward runs in a thread of its own, which the process leaves behind. None waits for ever.

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
        self,
        rewards: list[Reward],
        on_error: Literal["exclude", "raise"] = "exclude",
        timeout_s: float | None = None,
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

        if timeout_s is not None:
            # What a thread can be waited for is about 290 years.
            check_number("RewardMix.timeout_s", timeout_s, above=0, at_most=threading.TIMEOUT_MAX)

        # Constructors check weights, but a weight may have been set since.
        for reward in rewards:
            check_number(
                f"weight of reward '{reward.name}'", reward.weight, at_least=0, at_most=LARGEST
            )
        if not any(reward.weight for reward in rewards):
            raise ValueError(
                f"RewardMix.rewards: all weights of {names} are 0, so nothing would be learnt"
            )

        self.rewards = list(rewards)
        self.on_error = on_error
        self.timeout_s = timeout_s
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
        self,
        groups: Sequence[Sequence[Hypothesis]],
        panel: JudgePanel | None = None,
        rl_step: int | None = None,
    ) -> Scores:
        """Score B groups of G hypotheses.

        Args:
            groups: the samples of each prompt.
            panel: whom the rewards ask about speech, and what is known of these samples; by default an own one.
            rl_step: that they are of, for errors.

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
            try:
                values = self._values(reward, flat, panel)
            except TooLateError as error:
                where = "" if rl_step is None else f" in RL step {rl_step}"
                raise RewardError(
                    f"{_named(reward)} gave {error} for {len(flat)} samples{where} (RewardMix.timeout_s): mend it, "
                    "give it more time, or take it out of the mix"
                ) from error
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
        answers = self._attempt(reward, flat, panel)
        if isinstance(answers, Exception):
            # Some sample is at fault. Rewards may compare the samples of a row, so each row is tried by itself.
            self._report(reward, f"raised {_shown(answers)}", answers)
            answers = []
            for _, samples in groupby(flat, key=lambda hypothesis: hypothesis.row.id):
                answers += self._without_failing(reward, list(samples), panel)

        values = [_number(answer) for answer in answers]
        failed = [i for i, value in enumerate(values) if math.isnan(value)]
        if not failed:
            return values

        # The first of them says what is wrong; all of them would say the same over and over.
        first = answers[failed[0]]
        first_row = flat[failed[0]].row
        example = f"gave {_shown(first)} for row '{first_row.id}'"
        self._report(reward, example)

        # A step without any sample left would be learnt from nothing, and silently. A watched reward takes none out.
        if len(failed) == len(flat) and reward.weight:
            raise RewardError(
                f"{_named(reward)} failed on all {len(flat)} samples of a step; it {example}. Expected a finite number "
                f"within {LARGEST:,.0f} per sample: mend the reward or take it out of the mix"
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
            raise RewardError(f"{_named(reward)} {what}") from error
        if reward.name in self._warned:
            return
        self._warned.add(reward.name)
        _log.warning(
            "%s %s. Samples that it cannot score %s; the log counts them. This is said once per reward.",
            _named(reward),
            what,
            "leave the step" if reward.weight else "stay, as its weight is 0",
        )

    def _attempt(
        self,
        reward: Reward,
        hypotheses: list[Hypothesis],
        panel: JudgePanel,
    ) -> list[object] | Exception:
        """One answer per hypothesis, of whatever type; the exception where the reward raises one.

        Raises:
            RewardError: for a reward that is broken as a program: it returned no list, or one of another length.
        """

        def ask() -> object:
            if isinstance(reward, JudgedReward):
                return reward.score_with(hypotheses, panel)
            return reward.score(hypotheses)

        try:
            answers = ask() if self.timeout_s is None else within(self.timeout_s, ask)
        except (
            RewardError,
            TooLateError,
            KeyboardInterrupt,
        ):  # broken as a program: no sample is at fault
            raise
        except Exception as error:  # noqa: BLE001 - a user's reward may raise anything; it is logged or re-raised
            return error
        except BaseException as error:  # an exit(0) in a reward would look like a run that is done
            raise RewardError(f"{_named(reward)} ended the process with {_shown(error)}") from error

        if not isinstance(answers, (list, tuple)):
            raise RewardError(
                f"{_named(reward)} returned {type(answers).__name__}; expected a list of "
                f"{len(hypotheses)} floats"
            )
        if len(answers) != len(hypotheses):
            raise RewardError(
                f"{_named(reward)} returned {len(answers)} values for {len(hypotheses)} hypotheses; "
                "expected one each, in order"
            )
        return list(answers)

    def _without_failing(
        self,
        reward: Reward,
        group: list[Hypothesis],
        panel: JudgePanel,
    ) -> list[object]:
        """One answer per sample of a row, those that the reward fails on left out; their answer is its exception."""
        together = self._attempt(reward, group, panel)
        if not isinstance(together, Exception):
            return together

        answers: list[object] = []
        sound = []
        for i, hypothesis in enumerate(group):
            alone = self._attempt(reward, [hypothesis], panel)
            if isinstance(alone, Exception):
                answers.append(alone)
            else:
                answers.append(alone[0])
                sound.append(i)

        # The sound ones are scored together, since a reward may compare them. Where all are sound, the reward fails on
        # groups as such, and their values one by one are the best there is.
        if 0 < len(sound) < len(group):
            again = self._attempt(reward, [group[i] for i in sound], panel)
            for place, i in enumerate(sound):
                if isinstance(again, Exception):
                    answers[i] = again
                else:
                    answers[i] = again[place]
        return answers


def _number(answer: object) -> float:
    """The answer as a float; NaN when it is no number within `LARGEST`.

    Example:
        >>> _number(1), _number(True), _number("1"), _number(1e39), _number(10**400)
        (1.0, 1.0, nan, nan, nan)
    """
    # Tensors and texts are no numbers, even where they could be read as one: the reward is at fault.
    if not isinstance(answer, Real):
        return math.nan
    # Compared before it is a float: a whole number may be too large to become one.
    number: Any = answer
    return float(number) if -LARGEST <= number <= LARGEST else math.nan


def _named(reward: Reward) -> str:
    """The reward, for a message."""
    return f"reward '{reward.name}' ({type(reward).__name__})"


def _shown(answer: object) -> str:
    """What a reward gave, for a message: short, and whatever it is.

    Example:
        >>> _shown(0.5), _shown(10**5000), _shown("x" * 200)
        ('0.5', 'an int', "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...")
    """
    try:
        text = repr(answer)
    except Exception:  # noqa: BLE001 - a number with too many digits, or an object of the user's
        return f"an {type(answer).__name__}"
    # What an error says is what the user needs.
    longest = 500 if isinstance(answer, BaseException) else 80
    return text if len(text) <= longest else f"{text[: longest - 1]}..."
