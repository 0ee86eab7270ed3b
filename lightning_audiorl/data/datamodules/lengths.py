"""How long a clip may be: by the data module's settings, else by what the policy takes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_audiorl.data.manifest.source import PickedRows, RowSource
from lightning_audiorl.types import Utterance

_log = logging.getLogger(__name__)
#: Durations are binary fractions: what one lacks by their rounding is no reason.
_ROUNDED_S = 1e-6


@dataclass(frozen=True)
class LengthLimits:
    """Shortest and longest clip, in seconds, and who says so.

    Args:
        min_s: the shortest; None is no limit.
        max_s: the longest; None is no limit.
        min_of: the policy that ``min_s`` is of; "" for the setting.
        max_of: the same of ``max_s``.

    Example:
        >>> limits = LengthLimits(0.1, 30.0)
        >>> limits.problem(Utterance("a", (), "one", 31.0))
        "row 'a' lasts 31.00 s, more than max_duration_s=30.0"
        >>> limits.problem(Utterance("a", (), "one", 0.02))
        "row 'a' lasts 0.020 s, less than min_duration_s=0.1"
    """

    min_s: float | None = None
    max_s: float | None = None
    min_of: str = ""
    max_of: str = ""

    def is_short(self, duration_s: float) -> bool:
        """Whether a clip is too short."""
        return self.min_s is not None and duration_s < self.min_s - _ROUNDED_S

    def is_long(self, duration_s: float) -> bool:
        """Whether a clip is too long."""
        return self.max_s is not None and duration_s > self.max_s

    def problem(self, row: Utterance) -> str | None:
        """What is wrong with a row's length, in a few words; None where it is right."""
        if self.is_long(row.duration_s):
            return f"row {row.id!r} lasts {row.duration_s:.2f} s, more than {self._longest}"
        if self.is_short(row.duration_s):
            return f"row {row.id!r} lasts {row.duration_s:.3f} s, less than {self._shortest}"
        return None

    @property
    def _longest(self) -> str:
        return _spelled("max_duration_s", self.max_s, self.max_of)

    @property
    def _shortest(self) -> str:
        return _spelled("min_duration_s", self.min_s, self.min_of)

    def check(self, row: Utterance, name: str) -> None:
        """Raise ValueError for a row of the set ``name`` that is too long or too short."""
        problem = self.problem(row)
        if problem is not None:
            raise ValueError(
                f"{name}: {problem}; cut or remove it, or leave such rows out with on_too_long='skip'"
            )

    def within(self, rows: RowSource, name: str) -> tuple[RowSource, int, int]:
        """The rows that are of the right length, and how many are too long and too short; logs these.

        Raises:
            ValueError: no row is left.
        """
        kept: list[int] = []
        num_long = num_short = 0
        for number, row in enumerate(rows):
            if self.is_long(row.duration_s):
                num_long += 1
            elif self.is_short(row.duration_s):
                num_short += 1
            else:
                kept.append(number)
        if num_long + num_short == 0:
            return rows, 0, 0

        if num_long:
            _log.warning("%s: left out %d rows longer than %s s", name, num_long, self.max_s)
        if num_short:
            _log.warning("%s: left out %d rows shorter than %s s", name, num_short, self.min_s)
        if not kept:
            raise ValueError(f"{name}: {self._nothing_left(num_long, num_short)}")
        return PickedRows(rows, kept), num_long, num_short

    def _nothing_left(self, num_long: int, num_short: int) -> str:
        longer = f"longer than {self._longest}"
        shorter = f"shorter than {self._shortest}"
        num_rows = num_long + num_short
        if not num_short:
            return f"all {num_rows} rows are {longer}"
        if not num_long:
            return f"all {num_rows} rows are {shorter}"
        return f"all {num_rows} rows are {longer} or {shorter}"


def _spelled(setting: str, limit_s: float | None, policy: str) -> str:
    """A limit as messages name it."""
    return f"the {limit_s:g} s that {policy} takes" if policy else f"{setting}={limit_s}"


def check_limits(min_duration_s: float | None, max_duration_s: float | None) -> None:
    """Raise ValueError for a limit that is no number above 0, or for limits between which no clip fits."""
    for name, limit_s in (("min_duration_s", min_duration_s), ("max_duration_s", max_duration_s)):
        if limit_s is not None and not 0 < limit_s < float("inf"):
            raise ValueError(f"{name}: want seconds above 0, or null for no limit, got {limit_s}")
    if (
        min_duration_s is not None
        and max_duration_s is not None
        and min_duration_s > max_duration_s
    ):
        raise ValueError(
            f"min_duration_s={min_duration_s} is more than max_duration_s={max_duration_s}: no row would be left"
        )


def length_limits(
    min_duration_s: float | None,
    max_duration_s: float | None,
    trainer: Any,
    evaluates: bool = False,
) -> LengthLimits:
    """The limits that are set; where one is not set that of the policy which the trainer runs, if it has one.

    Args:
        min_duration_s: the data module's setting.
        max_duration_s: the data module's setting.
        trainer: the data module's trainer; None without one.
        evaluates: of sets that are evaluated, in which a policy may read clips beyond its window.
    """
    limits = LengthLimits(min_duration_s, max_duration_s)
    policy = _policy_of(trainer)
    span_s = getattr(policy, "clip_span_s", None)
    if span_s is None:
        return limits

    family = type(policy).__name__
    if min_duration_s is None:
        limits = replace(limits, min_s=span_s[0], min_of=family)
    reads_any = evaluates and getattr(policy, "long_form", False)
    if max_duration_s is None and not reads_any:
        limits = replace(limits, max_s=span_s[1], max_of=family)
    return limits


def padded_durations(durations_s: Sequence[float], trainer: Any) -> list[float]:
    """Seconds that clips are computed as, by the policy that the trainer runs; their own where it does not say.

    Args:
        durations_s: of the clips.
        trainer: the data module's trainer; None without one.

    Example:
        >>> padded_durations([1.5, 0.5], trainer=None)
        [1.5, 0.5]
    """
    padded_s = getattr(_policy_of(trainer), "padded_s", None)
    if padded_s is None:
        return list(durations_s)
    return [padded_s(duration_s) for duration_s in durations_s]


def _policy_of(trainer: Any) -> Any:
    return getattr(getattr(trainer, "lightning_module", None), "policy", None)
