"""A reward that any model can raise."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_audiorl.rewards import Reward
from lightning_audiorl.types import Hypothesis


class ShareOfTwo(Reward):
    """How many of the words are "two"; 0 for an empty hypothesis."""

    range = (0.0, 1.0)

    def __init__(self, weight: float = 1.0, name: str = "share_of_two") -> None:
        super().__init__(weight, name)

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        shares = []
        for hypothesis in hypotheses:
            words = hypothesis.text.split()
            shares.append(words.count("two") / len(words) if words else 0.0)
        return shares
