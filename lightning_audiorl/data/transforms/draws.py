"""Names of settings, ranges from a configuration and draws from them; ``share`` is a uniform draw in [0, 1)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")
_N = TypeVar("_N", int, float)


def settings_name(*settings: object) -> str:
    """Eight letters, the same for the same settings: they keep ids apart between two sources with different ones."""
    return hashlib.blake2b(repr(settings).encode(), digest_size=4).hexdigest()


def check_span(where: str, span: tuple[_N, _N], lowest: _N) -> tuple[_N, _N]:
    """(low, high) itself, or a ValueError that begins with ``where``, such as "FsddDigits.gap_s"."""
    if len(span) != 2 or not lowest <= span[0] <= span[1]:
        raise ValueError(f"{where}: want (low, high) with {lowest} <= low <= high, got {span}")
    return span[0], span[1]


def pick(items: Sequence[_T], share: float) -> _T:
    """One of ``items``, each as likely as the next."""
    return items[min(int(share * len(items)), len(items) - 1)]


def whole(span: tuple[int, int], share: float) -> int:
    """A whole number from low to high, both included."""
    return span[0] + min(int(share * (span[1] - span[0] + 1)), span[1] - span[0])


def seconds(span: tuple[float, float], share: float) -> float:
    """Seconds between low and high in steps of 0.01: whole samples at 8, 16 and 24 kHz."""
    return round(span[0] + share * (span[1] - span[0]), 2)
