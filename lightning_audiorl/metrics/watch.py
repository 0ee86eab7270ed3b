"""The hacking watch: the reward rises while metrics get worse; judges that reward and judges held out part ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from lightning_audiorl.metrics.specs import evaluation_spec

# What to do, at the end of each alert.
_ON_HACKING = (
    "look at the samples of this set; a larger beta, a reward for it too, or the best checkpoint"
)
_ON_GAP = "listen to samples; reward by several judges, or stop at the best checkpoint"
_ON_SILENCE = "give Accuracy a floor of -1, pay less for what punishes text, or train on fewer rows without speech"
_ON_EMPTY = "finetune by supervision first, leave out rows that it cannot do at all, give Accuracy a floor of -1"

#: Whether chance may have made a change: of the metric with this log key, since the validation of this number, by so
#: much.
IsNoise = Callable[[str, int, float], bool]


def never_noise(key: str, since: int, change: float) -> bool:
    """Of a watch that knows nothing of the rows: every change counts."""
    return False


def reward_hacking_alerts(
    rewards: Sequence[float],
    metrics: Mapping[str, Sequence[float]],
    tolerance: float = 0.02,
    reward_tolerance: float = 0.0,
    is_noise: IsNoise = never_noise,
) -> list[str]:
    """One sentence per metric that is worse now than at its best, though the reward has risen since then.

    Args:
        rewards: mean reward at each validation, oldest first.
        metrics: value at each validation by log key ("wer", "val/long/wer"); those whose spec does not watch them
            beside the reward are ignored. NaN (undefined in a set) is passed over.
        tolerance: how much worse a metric may be, absolute: 0.02 is two points of WER, or of length ratio away from 1.
        reward_tolerance: how much the reward must have risen.
        is_noise: says which changes may be chance; they are passed over.

    Raises:
        ValueError: when a metric has another number of values than the reward.

    Example:
        >>> reward_hacking_alerts([0.1, 0.8], {"val/long/wer": [0.2, 0.4]})
        ['reward rose from 0.100 to 0.800 while val/long/wer went from 0.200 to 0.400 (validation 0 to 1); ...']
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
        if worse <= tolerance or gained <= reward_tolerance:
            continue
        if not is_noise(key, best, worse):
            alerts.append(
                f"reward rose from {rewards[best]:.3f} to {rewards[-1]:.3f} "
                f"while {key} went from {values[best]:.3f} to {values[-1]:.3f} "
                f"(validation {best} to {len(values) - 1}); {_ON_HACKING}"
            )
    return alerts


def gap_alerts(
    history: Mapping[str, Sequence[float]],
    tolerance: float = 0.05,
    is_noise: IsNoise = never_noise,
) -> list[str]:
    """One sentence per gap between a reward judge and its held-out counterpart that has opened since the start.

    Args:
        history: value at each validation by log key, oldest first; metrics that are not watched as a gap
            (``judge_gap`` and ``similarity_gap`` are) are ignored, NaN is passed over.
        tolerance: by how much a gap may grow over that of the first validation, absolute.
        is_noise: says which changes may be chance; they are passed over.

    Example:
        >>> (alert,) = gap_alerts({"val/long/judge_gap": [0.01, 0.14], "val/long/wer": [0.2, 0.4]})
        >>> alert.partition(":")[0]
        'val/long/judge_gap opened from 0.010 to 0.140'
    """
    alerts = []
    for key, values in history.items():
        spec = evaluation_spec(key)
        span = first_and_last(values)
        if spec.watch != "gap" or span is None:
            continue

        # A gap that the start already had is the judges' difference, not the policy's doing.
        start, now = span
        since = values.index(start)
        if now - start > tolerance and not is_noise(key, since, now - start):
            alerts.append(
                f"{key} opened from {start:.3f} to {now:.3f}: "
                f"the first judge {spec.meaning} than the judge held out; "
                f"where it rewards, the policy may be learning the judge and not the task; {_ON_GAP}"
            )
    return alerts


def agreement_alerts(history: Mapping[str, Sequence[float]], tolerance: float = 0.2) -> list[str]:
    """One sentence per judge held out that orders the samples of a text less as the judge that rewards than it did.

    What RL climbs is the order of the samples of a text: where the judges no longer share it, reward is gained by what
    the other one does not hear, and that can show before the means part.

    Args:
        history: value at each validation by log key, oldest first; metrics that are not watched for agreement
            (``judge_tau`` and ``judge_tau_by_*`` are) are ignored, NaN is passed over.
        tolerance: by how much a rank agreement may fall below that of the first validation, absolute.

    Example:
        >>> (alert,) = agreement_alerts({"val/long/judge_tau": [0.62, 0.35], "val/long/wer": [0.2, 0.4]})
        >>> alert.partition(":")[0]
        'val/long/judge_tau fell from 0.62 to 0.35'
    """
    alerts = []
    for key, values in history.items():
        spec = evaluation_spec(key)
        known = first_and_last(values)
        if spec.watch != "agreement" or known is None:
            continue

        start, now = known
        if start - now > tolerance:
            alerts.append(
                f"{key} fell from {start:.2f} to {now:.2f}: the judge held out {spec.meaning} than the judge that "
                f"rewards; more reward may no longer mean more that others understand; {_ON_GAP}"
            )
    return alerts


def silence_alerts(
    history: Mapping[str, Sequence[float]],
    deletions: float = 0.2,
    length: float = 0.8,
    is_noise: IsNoise = never_noise,
) -> list[str]:
    """One sentence per set in which a recogniser has begun to leave words out, whatever its reward does.

    A policy that is punished for what it invents may learn to say nothing: on long or hard audio an empty answer, with
    a WER of 100 %, can be its best one.

    Args:
        history: value at each validation by log key, oldest first; of each set ``deletion_rate`` and ``length_ratio``
            are read, NaN is passed over.
        deletions: by how much the share of deleted words may grow over that of the first validation, absolute.
        length: share of the first validation's words that is still said, at least.
        is_noise: says which changes may be chance; they are passed over.

    Example:
        >>> said = {"val/long/deletion_rate": [0.05, 0.6], "val/long/length_ratio": [1.0, 0.42]}
        >>> silence_alerts(said)
        ['val/long: the policy falls silent: 60 % of the words are left out (5 % at first), 0.42 words are said ...']
        >>> silence_alerts({"val/long/deletion_rate": [0.05, 0.06], "val/long/length_ratio": [1.0, 1.0]})
        []
    """
    alerts = []
    for key, values in history.items():
        prefix, _, name = key.rpartition("/")
        lengths = history.get(f"{prefix}/length_ratio", ())
        if name != "deletion_rate" or len(lengths) != len(values):
            continue
        left_out = first_and_last(values)
        said = first_and_last(lengths)
        if left_out is None or said is None:
            continue

        grown = left_out[1] - left_out[0]
        if grown <= deletions or said[1] >= length * said[0]:
            continue
        if not is_noise(key, values.index(left_out[0]), grown):
            alerts.append(
                f"{prefix}: the policy falls silent: {100 * left_out[1]:.0f} % of the words are left out "
                f"({100 * left_out[0]:.0f} % at first), {said[1]:.2f} words are said for each one spoken "
                f"({said[0]:.2f}); {_ON_SILENCE}"
            )
    return alerts


def empty_answer_alerts(start: Mapping[str, float], is_noise: IsNoise = never_noise) -> list[str]:
    """One sentence per set whose error rate is above 100 % before the first step: saying nothing would be better.

    Args:
        start: metrics by log key; those called ``wer`` or ``cer`` are read.
        is_noise: says which of them chance may have put above 100 %; they are passed over.

    Example:
        >>> empty_answer_alerts({"val/long/wer": 1.34, "val/short/wer": 0.2})
        ['val/long/wer is 134 % before the first step: an empty answer has 100 % and is better; ...']
    """
    alerts = []
    for key, value in start.items():
        is_rate = key.rpartition("/")[2] in ("wer", "cer")
        if is_rate and value > 1 and not is_noise(key, 0, value - 1):
            alerts.append(
                f"{key} is {100 * value:.0f} % before the first step: an empty answer has 100 % and is better; "
                f"{_ON_EMPTY}"
            )
    return alerts


def first_and_last(values: Sequence[float]) -> tuple[float, float] | None:
    """The first known value and the last one; None where the last is unknown.

    Example:
        >>> first_and_last([math.nan, 0.1, 0.4]), first_and_last([0.1, math.nan])
        ((0.1, 0.4), None)
    """
    known = [value for value in values if not math.isnan(value)]
    if not known or math.isnan(values[-1]):
        return None
    return known[0], known[-1]
