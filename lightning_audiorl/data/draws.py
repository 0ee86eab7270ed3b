"""Ranges from a configuration, values drawn from them, and short names of settings.

A ``share`` is a uniform draw in [0, 1). Drawing by share instead of by generator keeps every value a function of its
own key: see `keyed_uniform`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")
_N = TypeVar("_N", int, float)


def settings_name(*settings: object) -> str:
    """Eight letters, the same for the same settings: they keep ids apart between two sources with different ones.

    Example:
        >>> settings_name(0, (1, 7))
        '55818a3f'
    """
    return hashlib.blake2b(repr(settings).encode(), digest_size=4).hexdigest()


def check_span(where: str, span: tuple[_N, _N], lowest: _N) -> tuple[_N, _N]:
    """The range (low, high) itself.

    Args:
        where: what the error begins with, such as "FsddDigits.gap_s".
        span: low and high.
        lowest: the smallest low.

    Raises:
        ValueError: no pair, an infinite high, or not ``lowest <= low <= high``.

    Example:
        >>> check_span("NoisePadded.before_s", (3.0, 0.5), 0.0)
        Traceback (most recent call last):
        ...
        ValueError: NoisePadded.before_s: want (low, high) with 0.0 <= low <= high, got (3.0, 0.5)
    """
    is_span = len(span) == 2 and lowest <= span[0] <= span[1] < math.inf
    if not is_span:
        raise ValueError(f"{where}: want (low, high) with {lowest} <= low <= high, got {span}")
    return span[0], span[1]


def pick(items: Sequence[_T], share: float) -> _T:
    """One of ``items``, each as likely as the next.

    Example:
        >>> pick(["a", "b", "c", "d"], 0.5)
        'c'
    """
    place = int(share * len(items))
    return items[min(place, len(items) - 1)]


def whole(span: tuple[int, int], share: float) -> int:
    """A whole number from low to high, both included.

    Example:
        >>> [whole((3, 5), share) for share in (0.0, 0.5, 0.99)]
        [3, 4, 5]
    """
    low, high = span
    num_values = high - low + 1
    step = min(int(share * num_values), num_values - 1)
    return low + step


def between(span: tuple[float, float], share: float) -> float:
    """A number from low to high, uniform.

    Example:
        >>> between((-6.0, 6.0), 0.75)
        3.0
    """
    low, high = span
    return low + share * (high - low)


def seconds(span: tuple[float, float], share: float) -> float:
    """Seconds between low and high in steps of 0.01: whole samples at 8, 16 and 24 kHz.

    Example:
        >>> seconds((0.5, 3.0), 0.333)
        1.33
    """
    return round(between(span, share), 2)
