"""What the number of a setting may be. ``value < 0`` alone lets NaN pass: every comparison with NaN is false."""

from __future__ import annotations

import math
from numbers import Integral, Real


def check_number(
    name: str,
    value: float,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    at_most: float = math.inf,
    below: float = math.inf,
    infinite: bool = False,
) -> None:
    """See that a setting is a number within its range.

    Args:
        name: what the error begins with, such as "Optim.lr".
        value: of the setting.
        at_least, above, at_most, below: its range.
        infinite: whether infinity is allowed, as for a bound that bounds nothing.

    Raises:
        ValueError: for NaN, infinity, no number at all, or one outside the range.

    Example:
        >>> check_number("Optim.lr", float("nan"), above=0)
        Traceback (most recent call last):
        ...
        ValueError: Optim.lr: want a finite number above 0, got nan
    """
    # Whole numbers beyond the largest float are none that a setting could use.
    is_number = isinstance(value, Real) and abs(value) <= math.inf and not isinstance(value, bool)
    fits = is_number and at_least <= value <= at_most and (value > above or above == -math.inf)
    fits = fits and (value < below or below == math.inf)
    if fits and (infinite or math.isfinite(value)):
        return

    limits = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    given = [f"{word} {limit}" for word, limit in limits.items() if math.isfinite(limit)]
    kind = "a number" if infinite else "a finite number"
    wanted = " ".join([kind, " and ".join(given)]).rstrip()
    raise ValueError(f"{name}: want {wanted}, got {value!r}")


def check_count(name: str, value: int, at_least: int = 0) -> None:
    """See that a setting is a whole number that is large enough.

    Args:
        name: what the error begins with.
        value: of the setting.
        at_least: its lowest value.

    Raises:
        ValueError: for a fraction, NaN, infinity, or a number below ``at_least``.

    Example:
        >>> check_count("GRPO.group_size", 1, at_least=2)
        Traceback (most recent call last):
        ...
        ValueError: GRPO.group_size: want a whole number of at least 2, got 1
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or value < at_least:
        raise ValueError(f"{name}: want a whole number of at least {at_least}, got {value!r}")
