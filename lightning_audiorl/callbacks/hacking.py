"""Says when the reward rises while metrics that are not rewarded get worse, and when speech drifts from its start."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lightning_audiorl.callbacks.outputs import tensorboard_writers
from lightning_audiorl.callbacks.report_rows import gathered_rows
from lightning_audiorl.callbacks.view import flat_metrics, row_results, run_view, validations
from lightning_audiorl.callbacks.watched_rows import WatchedRows
from lightning_audiorl.checks import check_count, check_number
from lightning_audiorl.metrics import (
    agreement_alerts,
    empty_answer_alerts,
    gap_alerts,
    reward_hacking_alerts,
    silence_alerts,
)
from lightning_audiorl.metrics.specs import evaluation_spec
from lightning_audiorl.metrics.watch import IsNoise, first_and_last, never_noise

_log = logging.getLogger(__name__)

#: What a checkpoint keeps.
_STATE = ("rewards", "alerts", "_first", "_recent", "_rewarded")


def drift_alerts(
    history: Mapping[str, Sequence[float]],
    tolerance: float = 0.1,
    is_noise: IsNoise = never_noise,
) -> list[str]:
    """One sentence per metric that no reward should move, and that has left its start behind.

    Args:
        history: value at each validation by log key, oldest first; metrics that are not watched for a drift (of the
            shipped ones mean F0, duration ratio and tokens per unit are) are ignored, NaN is passed over.
        tolerance: how far a value may be from that of the first validation, as a share of it.
        is_noise: says which changes may be chance; they are passed over.

    Example:
        >>> drift_alerts({"val/dev/f0_mean_hz": [120.0, 150.0], "val/dev/wer": [0.1, 0.9]})
        ['val/dev/f0_mean_hz drifted from 120 to 150 (+25 %): the voice is another']
    """
    alerts = []
    for key, values in history.items():
        spec = evaluation_spec(key)
        span = first_and_last(values)

        # No value can be a share of a start that is 0.
        if spec.watch != "drift" or span is None or not span[0]:
            continue

        start, now = span
        drift = now / start - 1
        if abs(drift) > tolerance and not is_noise(key, values.index(start), now - start):
            share = f"{100 * drift:+.0f} %"
            alerts.append(f"{key} drifted from {start:.4g} to {now:.4g} ({share}): {spec.meaning}")
    return alerts


def _series(evaluations: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """The metrics of the last evaluation, each with its values over all of them; NaN where one did not have it."""
    series = {}
    for key in evaluations[-1]:
        series[key] = [metrics.get(key, math.nan) for metrics in evaluations]
    return series


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return math.nan
    return sum(known) / len(known)


class HackingWatch(Callback):
    """Compares, at each validation, the training reward with every metric of every set.

    The reward of a validation is the mean over the RL steps just before it; that of the validation before the first
    step is the mean over the first steps, when the policy has hardly moved. Where no waveform is rewarded (DiffRO
    alone) it is the reward by Token2Text; steps that kept no sample are passed over.

    Before the first step it says which sets have an error rate above 100 %, and later when a policy falls silent: more
    words left out, fewer said, whatever the reward does.

    Of a policy that speaks it also says when a gap between the judges that reward and those held out opens, when they
    no longer put the samples of a text in one order, and when pitch, pace or length drift from those of the first
    validation, whatever the reward does. Where nothing is rewarded (supervised training) it says nothing: no reward can
    be hacked, and to leave the start behind is the point.

    Args:
        tolerance: how much worse than at its best a metric may be, absolute (0.02 is two points of WER).
        reward_tolerance: how much the reward must have risen since then.
        window: RL steps averaged, at most; never over another validation.
        gap_tolerance: by how much a gap between judges may grow, absolute (0.05 is five points of CER).
        drift_tolerance: how far mean F0, duration ratio and tokens per unit may move, as a share of their start.
        agreement_tolerance: by how much the rank agreement of judges may fall, absolute.
        false_alarms: share of runs without any change in which something may be said all the same, over all sets,
            metrics and validations; None looks at the tolerances alone.

    Raises:
        ValueError: for a window without a step, a negative tolerance, or a share that is not between 0 and 1.
    """

    def __init__(
        self,
        tolerance: float = 0.02,
        reward_tolerance: float = 0.0,
        window: int = 10,
        gap_tolerance: float = 0.05,
        drift_tolerance: float = 0.1,
        agreement_tolerance: float = 0.2,
        false_alarms: float | None = 0.05,
    ) -> None:
        check_count("HackingWatch.window", window, at_least=1)
        check_number("HackingWatch.tolerance", tolerance)
        check_number("HackingWatch.reward_tolerance", reward_tolerance)
        check_number("HackingWatch.gap_tolerance", gap_tolerance, at_least=0)
        check_number("HackingWatch.drift_tolerance", drift_tolerance, at_least=0)
        check_number("HackingWatch.agreement_tolerance", agreement_tolerance, at_least=0)
        if false_alarms is not None and not 0 < false_alarms < 1:
            raise ValueError(
                f"HackingWatch.false_alarms: want a share between 0 and 1, or null; got {false_alarms}"
            )

        self.tolerance = tolerance
        self.reward_tolerance = reward_tolerance
        self.window = window
        self.gap_tolerance = gap_tolerance
        self.drift_tolerance = drift_tolerance
        self.agreement_tolerance = agreement_tolerance
        #: Reward at each validation, oldest first.
        self.rewards: list[float] = []
        #: ``{"rl_step", "text"}`` of everything said so far.
        self.alerts: list[dict[str, Any]] = []

        # Rewards of the first steps of the run, those since the last validation, and whether there is any reward.
        self._first: list[float] = []
        self._recent: list[float] = []
        self._rewarded = False
        self._rows = None if false_alarms is None else WatchedRows(false_alarms)

    def state_dict(self) -> dict[str, Any]:
        """Rewards and alerts so far, and the rows that later validations are compared with."""
        state = {name: getattr(self, name) for name in _STATE}
        return state if self._rows is None else state | {"rows": self._rows.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the `state_dict` of another process; earlier builds kept no rows."""
        for name in _STATE:
            if name in state_dict:
                setattr(self, name, state_dict[name])
        if self._rows is not None and "rows" in state_dict:
            self._rows.load_state_dict(state_dict["rows"])

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        *_: Any,
    ) -> None:
        """Note the reward of a step."""
        metrics = run_view(pl_module).step_metrics
        self._rewarded = self._rewarded or any(name.startswith("reward/") for name in metrics)

        reward = metrics.get("reward/mean", metrics.get("reward/diffro/total"))
        if reward is None or math.isnan(reward):
            return

        if len(self._first) < self.window:
            self._first.append(reward)
        self._recent = [*self._recent, reward][-self.window :]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what has got worse since an earlier validation."""
        if trainer.state.fn != "fit":
            return

        self.rewards.append(_mean(self._recent))
        self._recent = []
        run = run_view(pl_module)
        evaluations = validations(run)

        # A watch that joins a resumed run has missed the validations before.
        missed = [math.nan] * max(0, len(evaluations) - len(self.rewards))
        rewards = [*missed, *self.rewards][-len(evaluations) :]
        if evaluations[0]["rl_step"] == 0 and math.isnan(rewards[0]):
            rewards[0] = _mean(self._first)

        series = _series([flat_metrics(one["results"]) for one in evaluations])
        is_noise, is_above_empty_by_chance = self._look_at_rows(trainer, pl_module, evaluations)
        texts = reward_hacking_alerts(
            rewards, series, self.tolerance, self.reward_tolerance, is_noise
        )
        # Supervised training begins where it begins: it is what the advice would be.
        is_rewarded = getattr(pl_module, "rewards", None) is not None
        if run.rl_step == 0 and is_rewarded:
            start = flat_metrics(evaluations[0]["results"])
            texts += empty_answer_alerts(start, is_above_empty_by_chance)
        if self._rewarded:
            texts += silence_alerts(series, is_noise=is_noise)
            texts += gap_alerts(series, self.gap_tolerance, is_noise)
            texts += agreement_alerts(series, self.agreement_tolerance)
            texts += drift_alerts(series, self.drift_tolerance, is_noise)

        for text in texts:
            self.alerts.append({"rl_step": run.rl_step, "text": text})
            if trainer.is_global_zero:
                _log.warning("RL step %d: %s", run.rl_step, text)
            for writer in tensorboard_writers(trainer):
                writer.add_text("hacking_watch", text, run.rl_step)

    def _look_at_rows(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        evaluations: Sequence[Mapping[str, Any]],
    ) -> tuple[IsNoise, IsNoise]:
        """What tells a change from chance, and an error rate above 100 % from one that chance put there."""
        # Of a module that keeps no rows; it is one on every rank.
        if self._rows is None or not hasattr(pl_module, "row_results"):
            return never_noise, never_noise
        rows = gathered_rows(trainer, row_results(pl_module))
        now = flat_metrics(evaluations[-1]["results"])
        self._rows.note(len(evaluations) - 1, rows, now)
        return self._rows.is_noise, self._rows.is_above_empty_by_chance
