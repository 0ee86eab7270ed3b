from __future__ import annotations

import io
import logging
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_audiorl.callbacks import PhaseProgressBar
from tests.callbacks import runs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_few_lines_where_there_is_no_terminal(
    root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.fit(
        tmp_path, root, PhaseProgressBar(), module=runs.grpo(num_steps=2), enable_progress_bar=True
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("]")[0] for line in lines] == [
        "evaluating at RL step 0: digits, noise",
        "RL step 1/2 [==========          ",
        "RL step 2/2 [====================",
        "evaluating at RL step 2: digits, noise",
    ]
    assert "reward -" in lines[1]
    assert "kl 0" in lines[1]
    assert "rollout 0." in lines[1]


def test_a_long_run_prints_ten_lines(capsys: pytest.CaptureFixture[str]) -> None:
    bar, run = PhaseProgressBar(), runs.view()
    trainer: Any = SimpleNamespace()
    bar.on_train_start(trainer, run)
    for _ in range(1000):
        bar.on_train_batch_start(trainer, run)
        run.rl_step += 1
        bar.on_train_batch_end(trainer, run)
    bar.on_train_end(trainer, run)
    assert len(capsys.readouterr().out.splitlines()) == 10


def test_a_slow_step_gives_a_sign_of_life(capsys: pytest.CaptureFixture[str]) -> None:
    bar, run = PhaseProgressBar(refresh_s=0.01, line_every_s=0.02), runs.view(rl_step=3)
    bar.on_train_start(SimpleNamespace(), run)  # type: ignore[arg-type]
    with run.clock.enter("rollout"):
        time.sleep(0.15)
    bar.on_train_end(SimpleNamespace(), run)  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) < 10
    assert all("RL step 3/1000" in line and "rollout" in line for line in lines)


def test_a_terminal_sees_one_line_with_the_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    bar, run = PhaseProgressBar(refresh_s=0.01), runs.view(rl_step=3)
    bar.on_train_start(SimpleNamespace(), run)  # type: ignore[arg-type]
    with run.clock.enter("update"):
        time.sleep(0.1)
    bar.print("a message")
    bar.on_train_end(SimpleNamespace(), run)  # type: ignore[arg-type]
    drawn, last, rest = terminal.getvalue().split("\n")
    assert "update" in drawn
    assert drawn.endswith(" \ra message"), "the line is wiped before something else is printed"
    assert last.rpartition("\r")[2].startswith("RL step 3/1000 [")
    assert rest == ""


def test_messages_of_others_stand_above_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    make_record = logging.getLogRecordFactory()
    show_warning = warnings.showwarning

    # Both go where the line is drawn, as on a terminal.
    handler = logging.StreamHandler(terminal)
    logger = logging.getLogger("tests.progress")
    logger.addHandler(handler)
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: terminal.write(f"{message}\n"))
    replaced = warnings.showwarning

    bar, run = PhaseProgressBar(refresh_s=0.01), runs.view(rl_step=3)
    bar.on_train_start(SimpleNamespace(), run)  # type: ignore[arg-type]
    time.sleep(0.1)
    logger.warning("a record")
    time.sleep(0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("a warning", stacklevel=1)
    time.sleep(0.1)
    bar.on_train_end(SimpleNamespace(), run)  # type: ignore[arg-type]
    logger.removeHandler(handler)

    first, second, *_ = terminal.getvalue().split("\n")
    assert first.endswith(" \ra record")
    assert second.endswith(" \ra warning")
    assert logging.getLogRecordFactory() is make_record
    assert warnings.showwarning is replaced is not show_warning


def test_the_mean_of_the_last_steps_stands_beside_the_last() -> None:
    bar, run = PhaseProgressBar(), runs.view(rl_step=1, step_metrics={"reward/mean": 0.0})
    bar.disable()
    bar.on_train_start(SimpleNamespace(), run)  # type: ignore[arg-type]
    for reward in range(12):
        run.step_metrics = {"reward/mean": float(reward)}
        bar.on_train_batch_end(SimpleNamespace(), run)  # type: ignore[arg-type]
    assert " | reward 11 (mean of 10: 6.5) | " in bar.line()


@pytest.mark.parametrize(
    ("metrics", "shown", "hidden"),
    [
        ({"reward/mean": 0.5, "kl": 0.01, "loss": 3.0}, ["reward 0.5", "kl 0.01"], "loss"),
        ({"loss": 1.25}, ["loss 1.25"], "kl"),
        ({"reward/mean": float("nan"), "loss": 1.0}, [], "reward"),
    ],
)
def test_reward_and_kl_or_the_loss(
    metrics: dict[str, float], shown: list[str], hidden: str
) -> None:
    bar, run = PhaseProgressBar(), runs.view(rl_step=1, step_metrics=metrics)
    bar.disable()
    bar.on_train_start(SimpleNamespace(), run)  # type: ignore[arg-type]
    bar.on_train_batch_end(SimpleNamespace(), run)  # type: ignore[arg-type]
    assert all(piece in bar.line() for piece in shown)
    assert hidden not in bar.line()


def test_an_exception_ends_the_thread(root: str, tmp_path: Path) -> None:
    bar = PhaseProgressBar()
    bar.on_train_start(SimpleNamespace(), runs.view())  # type: ignore[arg-type]
    bar.on_exception(SimpleNamespace(), runs.view(), RuntimeError())  # type: ignore[arg-type]
    assert bar._thread is None
