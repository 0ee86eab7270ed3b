"""`Engine`: where the completions of a rollout come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from lightning_audiorl.models.policy import Context, Policy, SampleKey
from lightning_audiorl.types import Decoding, Rollout


@dataclass(frozen=True)
class EngineMemory:
    """Bytes that an engine takes beside the training process.

    Args:
        weights: of the language model that it serves.
        cache: of keys and values.
        shares_device: whether it computes where the training does.
        where: the device it has, in words.
    """

    weights: int
    cache: int
    shares_device: bool
    where: str


class Engine(ABC):
    """Draws the completions of a rollout. An engine that is no other process has nothing to check, tell or close.

    Attributes:
        is_local: whether it computes what the policy itself would, so that no importance weight is needed.
    """

    is_local: ClassVar[bool] = False

    @abstractmethod
    def sample(
        self,
        policy: Policy[Any],
        context: Context,
        group_size: int,
        decoding: Decoding,
        key: SampleKey,
    ) -> Rollout:
        """G completions of each prompt under the policy's present weights; see `Policy.sample`."""

    @contextmanager
    def rollout(self, policy: Policy[Any]) -> Iterator[None]:
        """Around the calls of `sample` of one rollout: the policy's weights stay as they are."""
        yield

    def check(self, policy: Policy[Any], decoding: Decoding) -> None:  # noqa: B027
        """See before a run that the engine can sample from ``policy``.

        Raises:
            ValueError: saying why it cannot.
        """

    def copied_bytes(self) -> tuple[int, int]:
        """Of copies of the policy's weights on its device: those that are kept, and all of them in the last rollout."""
        return 0, 0

    def costs(self) -> dict[str, float]:
        """Metrics of what was done since the last call, by log key; seconds among them are part of the rollout."""
        return {}

    def memory(self, policy: Policy[Any]) -> EngineMemory | None:
        """What it would take for ``policy``, whose weights need no values; None for one that is no other process."""
        return None

    @property
    def host_bytes(self) -> int:
        """What it takes of the host's memory for weights on their way."""
        return 0

    def close(self) -> None:  # noqa: B027
        """Give back what is held; a later `sample` begins anew."""
