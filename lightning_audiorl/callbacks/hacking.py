"""Says when the reward rises while figures that nobody rewarded get worse."""

from __future__ import annotations

import logging
import math
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from lightning_audiorl.callbacks.common import flat_figures, tensorboard_writers
from lightning_audiorl.metrics import reward_hacking_alerts

_log = logging.getLogger(__name__)


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


class HackingWatch(Callback):
    """Compares, at each validation, the training reward with every figure of every set.

    The reward of a validation is the mean over the RL steps just before it; that of the validation before the first
    step is the mean over the first steps, when the policy has hardly moved.

    Args:
        tolerance: how much worse than at its best a figure may be, absolute (0.02 is two points of WER).
        reward_tolerance: how much the reward must have risen since then.
        window: RL steps averaged, at most; never over another validation.
    """

    def __init__(self, tolerance: float = 0.02, reward_tolerance: float = 0.0, window: int = 10) -> None:
        if window < 1:
            raise ValueError(f"HackingWatch.window must be at least 1, got {window}")
        self.tolerance, self.reward_tolerance, self.window = tolerance, reward_tolerance, window
        #: Reward at each validation, oldest first.
        self.rewards: list[float] = []
        #: ``{"rl_step", "text"}`` of everything said so far.
        self.alerts: list[dict[str, Any]] = []
        self._first: list[float] = []
        self._recent: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("rewards", "alerts", "_first", "_recent")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        reward = pl_module.step_metrics.get("reward/mean")
        if reward is None:
            return
        if len(self._first) < self.window:
            self._first.append(reward)
        self._recent = [*self._recent, reward][-self.window :]

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.state.fn != "fit":
            return
        self.rewards.append(_mean(self._recent))
        self._recent = []
        evaluations = [one for one in pl_module.evaluations if one["kind"] == "val"]
        # A watch that joins a resumed run has missed the validations before.
        rewards = ([math.nan] * len(evaluations) + self.rewards)[-len(evaluations) :]
        if evaluations[0]["rl_step"] == 0 and math.isnan(rewards[0]):
            rewards[0] = _mean(self._first)
        flat = [flat_figures(one["results"]) for one in evaluations]
        series = {key: [figures.get(key, math.nan) for figures in flat] for key in flat[-1]}
        for text in reward_hacking_alerts(rewards, series, self.tolerance, self.reward_tolerance):
            self.alerts.append({"rl_step": pl_module.rl_step, "text": text})
            if trainer.is_global_zero:
                _log.warning("RL step %d: %s", pl_module.rl_step, text)
            for writer in tensorboard_writers(trainer):
                writer.add_text("hacking_watch", text, pl_module.rl_step)
