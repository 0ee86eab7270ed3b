"""The share of every batch that a source of rows has, and how it changes over the steps."""

from __future__ import annotations

from collections.abc import Mapping

# One share for all steps, or ``{0: 1.0, 200: 0.5}``: another one from step 200 on.
Share = float | dict[int, float]


def share_at(share: Share, step: int) -> float:
    """The share that holds at ``step``; 0 before the first step named.

    Example:
        >>> share_at(2.0, step=7)
        2.0
        >>> [share_at({10: 1.0, 200: 0.5}, step) for step in (9, 10, 200)]
        [0.0, 1.0, 0.5]
    """
    if not isinstance(share, Mapping):
        return float(share)

    started = [first for first in share if first <= step]
    return float(share[max(started)]) if started else 0.0
