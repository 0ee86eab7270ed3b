"""What a reward is: a name, a weight, a range, and a score per hypothesis."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from lightning_audiorl.checks import check_number
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.text.compare import TextWatch
from lightning_audiorl.text.normalise import Normaliser, checked_normalisers, normaliser_for
from lightning_audiorl.types import Hypothesis

#: Values and weights of rewards are within this: float32 totals keep a tenth beside it.
LARGEST = 1e6


class RewardError(RuntimeError):
    """A reward is broken as a program (not: one sample could not be scored)."""


class Reward(ABC):
    """Scores hypotheses; higher is better.

    A reward that cannot score a sample raises, or returns NaN for it; it never makes up a value. `RewardMix` then
    takes that sample out of the step.

    Args:
        weight: factor in the mix, at least 0 and at most a million; with 0 the reward is only logged.
        name: log key of this part; unique within a mix.

    Attributes:
        range: lowest and highest value of the unweighted reward.

    Example:
        >>> class Short(Reward):
        ...     def score(self, hypotheses):
        ...         return [-float(hypothesis.num_tokens) for hypothesis in hypotheses]
        >>> from lightning_audiorl.types import Utterance
        >>> Short(1.0, "short").score([Hypothesis(Utterance("row", (), "one", 1.0), "one", num_tokens=4)])
        [-4.0]
    """

    range: tuple[float, float] = (-math.inf, math.inf)

    def __init__(self, weight: float, name: str) -> None:
        kind = type(self).__name__
        try:
            check_number(f"{kind}.weight", weight, at_least=0, at_most=LARGEST)
        except ValueError as error:
            raise ValueError(
                f"{error}. Rewards are higher-is-better: turn the sign inside the reward"
            ) from None
        if not name:
            raise ValueError(f"{kind}.name: expected a log key, got an empty string")
        self.weight = float(weight)
        self.name = name

    @abstractmethod
    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        """One value per hypothesis, in order. A step's hypotheses come in one list, the samples of a row contiguous."""

    def judges(self) -> list[nn.Module]:
        """The models that this reward judges with: its attributes that are modules. A strategy places them."""
        return [value for value in vars(self).values() if isinstance(value, nn.Module)]


class FunctionReward(Reward):
    """A plain function as a reward; `lightning_audiorl.train` makes one of every function that it is given.

    Args:
        function: of one `Hypothesis`, with its ``text`` and ``row``; returns a number, NaN where it cannot say.
        weight: see Reward.
        name: see Reward; that of the function by default.

    Raises:
        ValueError: for a lambda without a name.

    Example:
        >>> from lightning_audiorl.types import Utterance
        >>> def brief(hypothesis):
        ...     return -0.1 * len(hypothesis.text.split())
        >>> FunctionReward(brief).score([Hypothesis(Utterance("row", (), "one", 1.0), "one two")])
        [-0.2]
    """

    def __init__(
        self,
        function: Callable[[Hypothesis], float],
        weight: float = 1.0,
        name: str | None = None,
    ) -> None:
        own_name = getattr(function, "__name__", type(function).__name__)
        if name is None and own_name == "<lambda>":
            raise ValueError("FunctionReward.name: a lambda has no name for the log, give one")
        super().__init__(weight, name or own_name)
        self.function = function

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        """One value per hypothesis, in order."""
        return [self.function(hypothesis) for hypothesis in hypotheses]


class JudgedReward(Reward):
    """A reward that asks judges of speech.

    A subclass writes `score_with`, where it asks ``panel.ask(judge, hypotheses)``: rewards and metrics that want the
    answers of one judge share them. It also writes `seat_judges`, one line per judge:
    ``self.judge = panel.seat(self.judge, AsrJudge)``.
    """

    @abstractmethod
    def score_with(self, hypotheses: Sequence[Hypothesis], panel: JudgePanel) -> list[float]:
        """One value per hypothesis, in order; NaN where the judge failed."""

    @abstractmethod
    def seat_judges(self, panel: JudgePanel) -> None:
        """Put the panel's instances in the place of judges that were given by name, or as copies.

        Raises:
            JudgeError: for a name that the panel does not know, or that of another judge.
        """

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        """One value per hypothesis, in order; judges are asked afresh, on a panel of its own."""
        return self.score_with(hypotheses, JudgePanel())


class TextReward(Reward):
    """A reward that compares each hypothesis' text with its own reference.

    Args:
        weight: see Reward.
        name: see Reward.
        normalisers: by language code, in place of the built-in table (`text.normaliser_for`).

    Example:
        >>> class SameLength(TextReward):
        ...     def score_one(self, hypothesis):
        ...         normaliser = self.normaliser(hypothesis)
        ...         return float(len(normaliser.units(hypothesis.text)) == len(normaliser.units(hypothesis.row.text)))
        >>> from lightning_audiorl.types import Utterance
        >>> SameLength(1.0, "length").score([Hypothesis(Utterance("row", (), "one two", 1.0), "won too")])
        [1.0]
    """

    def __init__(
        self,
        weight: float,
        name: str,
        normalisers: Mapping[str, Normaliser] | None = None,
    ) -> None:
        super().__init__(weight, name)
        self.normalisers = checked_normalisers(normalisers)
        self._watch = TextWatch(f"reward '{name}'")

    def normaliser(self, hypothesis: Hypothesis) -> Normaliser:
        """The normaliser of the row's language."""
        row = hypothesis.row
        found = normaliser_for(row.lang, self.normalisers)
        self._watch.look(row.id, row.lang, row.text, hypothesis.text, found)
        return found

    @abstractmethod
    def score_one(self, hypothesis: Hypothesis) -> float:
        """The value of one hypothesis."""

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        # Its text is empty: every sample would silently count as an empty hypothesis.
        if any(hypothesis.speech is not None for hypothesis in hypotheses):
            raise RewardError(
                f"reward '{self.name}' ({type(self).__name__}) reads text, but the policy speaks; take a reward that "
                "listens, such as SpeechAccuracy"
            )

        return [self.score_one(hypothesis) for hypothesis in hypotheses]
