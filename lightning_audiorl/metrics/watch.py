"""The hacking watch: the reward rises while metrics get worse; judges that reward and judges held out part ways."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lightning_audiorl.metrics.specs import evaluation_spec


def reward_hacking_alerts(
    rewards: Sequence[float],
    metrics: Mapping[str, Sequence[float]],
    tolerance: float = 0.02,
    reward_tolerance: float = 0.0,
) -> list[str]:
    """One sentence per metric that is worse now than at its best, though the reward has risen since then.

    Args:
        rewards: mean reward at each validation, oldest first.
        metrics: value at each validation by log key ("wer", "val/long/wer"); those whose spec does not watch them
            beside the reward are ignored. NaN (undefined in a set) is passed over.
        tolerance: how much worse a metric may be, absolute: 0.02 is two points of WER, or of length ratio away from 1.
        reward_tolerance: how much the reward must have risen.

    Raises:
        ValueError: when a metric has another number of values than the reward.

    Example:
        >>> reward_hacking_alerts([0.1, 0.8], {"val/long/wer": [0.2, 0.4]})
        ['reward rose from 0.100 to 0.800 while val/long/wer went from 0.200 to 0.400 (validation 0 to 1)']
    """
    alerts = []
    for key, values in metrics.items():
        if len(values) != len(rewards):
            raise ValueError(
                f"'{key}' has {len(values)} values, the reward {len(rewards)}; expected as many"
            )

        spec = evaluation_spec(key)
        if spec.watch != "reward" or spec.better is None:
            continue
        if not values or math.isnan(values[-1]) or math.isnan(rewards[-1]):
            continue

        known = []
        for i, value in enumerate(values):
            if not math.isnan(value) and not math.isnan(rewards[i]):
                known.append(i)
        best = min(known, key=lambda i: spec.badness(values[i]))

        # Since its best, not since the validation before: a metric may get worse in steps too small to be seen.
        worse = spec.badness(values[-1]) - spec.badness(values[best])
        gained = rewards[-1] - rewards[best]
        if worse > tolerance and gained > reward_tolerance:
            alerts.append(
                f"reward rose from {rewards[best]:.3f} to {rewards[-1]:.3f} "
                f"while {key} went from {values[best]:.3f} to {values[-1]:.3f} "
                f"(validation {best} to {len(values) - 1})"
            )
    return alerts


def gap_alerts(history: Mapping[str, Sequence[float]], tolerance: float = 0.05) -> list[str]:
    """One sentence per gap between a reward judge and its held-out counterpart that has opened since the start.

    Args:
        history: value at each validation by log key, oldest first; metrics that are not watched as a gap
            (``judge_gap`` and ``similarity_gap`` are) are ignored, NaN is passed over.
        tolerance: by how much a gap may grow over that of the first validation, absolute.

    Example:
        >>> (alert,) = gap_alerts({"val/long/judge_gap": [0.01, 0.14], "val/long/wer": [0.2, 0.4]})
        >>> alert.partition(":")[0]
        'val/long/judge_gap opened from 0.010 to 0.140'
    """
    alerts = []
    for key, values in history.items():
        spec = evaluation_spec(key)
        known = [value for value in values if not math.isnan(value)]
        if spec.watch != "gap" or not known or math.isnan(values[-1]):
            continue

        # A gap that the start already had is the judges' difference, not the policy's doing.
        start = known[0]
        now = known[-1]
        if now - start > tolerance:
            alerts.append(
                f"{key} opened from {start:.3f} to {now:.3f}: "
                f"the first judge {spec.meaning} than the judge held out; "
                "where it rewards, the policy may be learning the judge and not the task"
            )
    return alerts
