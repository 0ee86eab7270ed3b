from __future__ import annotations

import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_audiorl.callbacks import HackingWatch
from tests.callbacks import runs
from tests.callbacks.test_samples import events, texts


def run(
    watch: HackingWatch,
    rewards: list[list[float]],
    wer: list[float],
    rl_step: int = 0,
    name: str = "reward/mean",
) -> None:
    """Evaluation, steps with these rewards, evaluation, ... without a trainer."""
    trainer: Any = SimpleNamespace(state=SimpleNamespace(fn="fit"), loggers=[], is_global_zero=True)
    module = runs.view(rl_step=rl_step)
    for number, value in enumerate(wer):
        for reward in rewards[number - 1] if number else []:
            module.rl_step += 1
            module.step_metrics = {name: reward}
            watch.on_train_batch_end(trainer, module)
        results = {"long": {"wer": value}}
        module.evaluations.append({"rl_step": module.rl_step, "kind": "val", "results": results})
        watch.on_validation_end(trainer, module)


def test_reward_up_and_wer_up_is_said_once_per_validation(caplog: pytest.LogCaptureFixture) -> None:
    watch = HackingWatch(window=2)
    with caplog.at_level(logging.WARNING):
        run(watch, [[0.1, 0.3, 0.6, 0.8], [0.95]], [0.2, 0.2, 0.4])
    assert [alert["rl_step"] for alert in watch.alerts] == [5]
    assert "val/long/wer went from 0.200 to 0.400" in watch.alerts[0]["text"]
    assert watch.alerts[0]["text"] in caplog.text
    assert math.isnan(watch.rewards[0])
    assert watch.rewards[1:] == pytest.approx([0.7, 0.95])


def test_the_start_counts_with_the_reward_of_the_first_steps() -> None:
    watch = HackingWatch(window=2)
    run(watch, [[0.1, 0.3, 0.6, 0.8]], [0.2, 0.4])
    assert "reward rose from 0.200 to 0.700" in watch.alerts[0]["text"]


def test_the_reward_by_token2text_counts_where_it_is_the_only_one() -> None:
    watch = HackingWatch(window=2)
    run(watch, [[-3.0, -2.0, math.nan, -1.0]], [0.2, 0.4], name="reward/diffro/total")
    assert "reward rose from -2.500 to -1.500" in watch.alerts[0]["text"]


def test_a_falling_reward_or_better_figures_are_no_hacking() -> None:
    for rewards, wer in ([[0.8, 0.8, 0.1, 0.1]], [0.2, 0.4]), ([[0.1, 0.1, 0.8, 0.8]], [0.4, 0.2]):
        watch = HackingWatch(window=2)
        run(watch, rewards, wer)
        assert watch.alerts == []


def test_a_watch_that_joins_later_knows_only_what_it_saw() -> None:
    watch = HackingWatch(window=1)
    run(watch, [[0.1], [0.5]], [0.2, 0.2, 0.4], rl_step=10)
    assert len(watch.alerts) == 1
    late = HackingWatch(window=1)
    late.rewards = []
    trainer: Any = SimpleNamespace(state=SimpleNamespace(fn="fit"), loggers=[], is_global_zero=True)
    past = [{"rl_step": s, "kind": "val", "results": {"long": {"wer": 0.1}}} for s in (0, 5)]
    now = {"rl_step": 9, "kind": "val", "results": {"long": {"wer": 0.9}}}
    late.on_train_batch_end(trainer, runs.view(step_metrics={"reward/mean": 1.0}))
    late.on_validation_end(trainer, runs.view(rl_step=9, evaluations=[*past, now]))
    assert late.alerts == []


def test_a_policy_that_falls_silent_is_told_though_its_reward_falls(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The words are left out, and WER stays at the 100 % of an empty answer."""
    watch = HackingWatch()
    trainer: Any = SimpleNamespace(state=SimpleNamespace(fn="fit"), loggers=[], is_global_zero=True)
    module = runs.view()
    module.rewards = object()
    for rl_step, (deleted, said) in enumerate([(0.1, 1.3), (0.2, 1.1), (0.9, 0.1)]):
        module.rl_step = rl_step
        metrics = {"wer": 1.2, "deletion_rate": deleted, "length_ratio": said}
        module.evaluations.append({"rl_step": rl_step, "kind": "val", "results": {"long": metrics}})
        watch.on_validation_end(trainer, module)
        module.step_metrics = {"reward/mean": -float(rl_step)}
        watch.on_train_batch_end(trainer, module)

    start, silent = watch.alerts
    assert start["rl_step"] == 0
    assert start["text"].startswith("val/long/wer is 120 % before the first step")
    assert silent["rl_step"] == 2
    assert silent["text"].startswith("val/long: the policy falls silent: 90 % of the words")
    assert "give Accuracy a floor of -1" in silent["text"]
    assert silent["text"] in caplog.text


def test_supervised_training_is_not_told_to_begin_with_supervised_training(
    root: str, tmp_path: Path
) -> None:
    """Random weights err in more than 100 % of the words, which is why they are trained."""
    watch = HackingWatch()
    module = runs.sft(num_steps=1)
    runs.fit(tmp_path, root, watch, module=module)
    start = [results["wer"] for results in module.evaluations[0]["results"].values()]
    assert max(start) > 1
    assert watch.alerts == []


@pytest.mark.usefixtures("good_start")
def test_an_alert_stands_in_tensorboard(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lightning_audiorl.callbacks.hacking.reward_hacking_alerts", lambda *_: ["look at this"]
    )
    logger = TensorBoardLogger(tmp_path, name="", version="")
    watch = HackingWatch()
    runs.fit(tmp_path, root, watch, module=runs.grpo(num_steps=1), logger=logger)
    assert [alert["rl_step"] for alert in watch.alerts] == [0, 1]
    assert texts(events(tmp_path), "hacking_watch") == {0: "look at this", 1: "look at this"}


@pytest.fixture
def good_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start whose error rates are below 100 %, unlike those of a model of random weights."""
    monkeypatch.setattr("lightning_audiorl.callbacks.hacking.empty_answer_alerts", lambda *_: [])


@pytest.mark.usefixtures("good_start")
@pytest.mark.parametrize(("module", "rl_steps"), [(runs.sft, []), (runs.grpo, [1])])
def test_gaps_and_drifts_matter_where_something_is_rewarded(
    module: Any, rl_steps: list[int], root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training from nothing leaves its start behind, which is the point of it."""
    monkeypatch.setattr("lightning_audiorl.callbacks.hacking.gap_alerts", lambda *_: ["a gap"])
    monkeypatch.setattr("lightning_audiorl.callbacks.hacking.drift_alerts", lambda *_: ["a drift"])
    watch = HackingWatch()
    runs.fit(tmp_path, root, watch, module=module(num_steps=1))
    assert watch.alerts == [
        {"rl_step": step, "text": text} for step in rl_steps for text in ("a gap", "a drift")
    ]


def test_the_gap_of_two_judges_opens(caplog: pytest.LogCaptureFixture) -> None:
    """The judge that rewards hears fewer errors, the one held out more: said with the numbers, and not before."""
    watch = HackingWatch()
    trainer: Any = SimpleNamespace(state=SimpleNamespace(fn="fit"), loggers=[], is_global_zero=True)
    module = runs.view(step_metrics={"reward/mean": 0.5})
    for rl_step, (cer, held_out_cer) in enumerate([(0.30, 0.31), (0.25, 0.28), (0.15, 0.29)]):
        module.rl_step = rl_step
        watch.on_train_batch_end(trainer, module)
        metrics = {"cer": cer, "held_out_cer": held_out_cer, "judge_gap": held_out_cer - cer}
        module.evaluations.append({"rl_step": rl_step, "kind": "val", "results": {"dev": metrics}})
        with caplog.at_level(logging.WARNING):
            watch.on_validation_end(trainer, module)
    assert [alert["rl_step"] for alert in watch.alerts] == [2]
    assert "val/dev/judge_gap opened from 0.010 to 0.140" in watch.alerts[0]["text"]
    assert watch.alerts[0]["text"] in caplog.text


def test_a_resumed_watch_knows_that_something_is_rewarded() -> None:
    """DiffRO's reward counts too; the validation right after a resume comes before any step."""
    watch, resumed = HackingWatch(), HackingWatch()
    trainer: Any = SimpleNamespace(state=SimpleNamespace(fn="fit"), loggers=[], is_global_zero=True)
    watch.on_train_batch_end(trainer, runs.view(step_metrics={"reward/diffro/total": -1.0}))
    resumed.load_state_dict(watch.state_dict())
    values = [
        {"rl_step": s, "kind": "val", "results": {"a": {"f0_mean_hz": hz}}}
        for s, hz in ((0, 100.0), (9, 150.0))
    ]
    resumed.on_validation_end(trainer, runs.view(rl_step=9, evaluations=values))
    assert [alert["text"].split()[0] for alert in resumed.alerts] == ["val/a/f0_mean_hz"]


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="window: want a whole number of at least 1, got 0"):
        HackingWatch(window=0)
