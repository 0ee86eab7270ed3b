"""`LocalEngine`: our own sampler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning_audiorl.models.decoding.cached_prompt import CachedPromptPolicy
from lightning_audiorl.models.decoding.weight_copies import WeightCopies
from lightning_audiorl.models.policy import Context, Policy, SampleKey
from lightning_audiorl.serving.base import Engine
from lightning_audiorl.types import Decoding, Rollout


class LocalEngine(Engine):
    """Our own sampler: keyed draws, each prompt computed once for its group, every family.

    Args:
        copy_weights: sample by copies of the weights of the linear layers of language model and head, made for each
            rollout (of frozen weights once per run): cast once where precision is mixed, and on a CPU laid out for
            decoding. Faster, at the memory of a copy; log-probs differ from those without by rounding.
    """

    is_local = True

    def __init__(self, copy_weights: bool = False) -> None:
        self.copy_weights = copy_weights
        self.copies = WeightCopies()

    def check(self, policy: Policy[Any], decoding: Decoding) -> None:
        if self.copy_weights:
            _copied(policy)

    @contextmanager
    def rollout(self, policy: Policy[Any]) -> Iterator[None]:
        if not self.copy_weights:
            yield
            return
        with self.copies.used([_copied(policy).backbone, _copied(policy).output]):
            yield

    def sample(
        self,
        policy: Policy[Any],
        context: Context,
        group_size: int,
        decoding: Decoding,
        key: SampleKey,
    ) -> Rollout:
        return policy.sample(context, group_size, decoding, key)

    def copied_bytes(self) -> tuple[int, int]:
        return self.copies.num_bytes, self.copies.peak_bytes

    def close(self) -> None:
        self.copies.free()


def _copied(policy: Policy[Any]) -> CachedPromptPolicy[Any]:
    """A policy whose layers are known.

    Raises:
        ValueError: for another one.
    """
    if isinstance(policy, CachedPromptPolicy):
        return policy
    raise ValueError(
        f"LocalEngine.copy_weights: {type(policy).__name__} does not say which layers a rollout reads; leave it out"
    )
