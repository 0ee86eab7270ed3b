"""TensorBoard gets the curves that change, as if they had never been held back; other loggers get all."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_audiorl.callbacks import HackingWatch, RLCheckpoint, RunReport, SampleLogger
from lightning_audiorl.engine.curves import Curves
from tests.callbacks import runs


def points(folder: Path) -> dict[str, dict[int, float]]:
    """Every curve, by tag and step, of all files in the order of their writing."""
    found: dict[str, dict[int, float]] = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            curve = found.setdefault(tag, {})
            curve |= {event.step: event.value for event in events.Scalars(tag)}
    return found


def written(folder: Path, steps: list[dict[str, float]], curves: Curves | None = None) -> Curves:
    """Write steps, the first of them step 1, into the curves of a fit that begins."""
    curves = curves or Curves()
    trainer: Any = SimpleNamespace(ckpt_path=None)
    curves.on_fit_start(trainer, SimpleNamespace())  # type: ignore[arg-type]
    logger = TensorBoardLogger(folder, name="", version="")
    for number, metrics in enumerate(steps, start=1):
        curves.write([logger], metrics, number)
    return curves


def test_a_constant_is_held_back_until_it_changes(tmp_path: Path) -> None:
    steps = [{"lr": 0.1, "skipped_rows": 0.0, "odd": math.nan} for _ in range(4)]
    steps[3]["lr"] = 0.05
    written(tmp_path, steps)
    # As float32 has them.
    assert list(points(tmp_path)) == ["lr"]
    assert list(points(tmp_path)["lr"]) == [1, 3, 4]
    assert [round(value, 3) for value in points(tmp_path)["lr"].values()] == [0.1, 0.1, 0.05]


def test_results_and_the_first_charts_are_never_held_back(tmp_path: Path) -> None:
    metrics = {"reward/mean": 0.0, "kl": 0.0, "val/dev/wer": 0.5, "val/dev/num_utterances": 9.0}
    written(tmp_path, [metrics, metrics])
    assert sorted(points(tmp_path)) == ["kl", "reward/mean", "val/dev/wer"]


def test_a_run_that_goes_on_draws_what_it_would_have_drawn(tmp_path: Path) -> None:
    steps = [{"a": 1.0, "b": 2.0, "c": 3.0} for _ in range(5)]
    steps[1] |= {"b": 4.0}
    steps[4] |= {"a": 5.0}
    written(tmp_path / "whole", steps)

    # Killed after step 3, of which no checkpoint tells: it goes on from step 2.
    first = Curves()
    written(tmp_path / "parts", steps[:2], first)
    state = first.state_dict()
    again = Curves()
    again.load_state_dict(state)
    again.on_fit_start(SimpleNamespace(ckpt_path="last.ckpt"), SimpleNamespace())  # type: ignore[arg-type]
    logger = TensorBoardLogger(tmp_path / "parts", name="", version="")
    for number in (3, 4, 5):
        again.write([logger], steps[number - 1], number)
    assert points(tmp_path / "parts") == points(tmp_path / "whole")


def test_after_an_earlier_builds_checkpoint_and_in_a_test_all_is_drawn(tmp_path: Path) -> None:
    """There the curve is half drawn already, and here it has one point."""
    curves = Curves()
    logger = TensorBoardLogger(tmp_path, name="", version="")
    curves.write([logger], {"a": 1.0}, 0)
    curves.on_fit_start(SimpleNamespace(ckpt_path="old.ckpt"), SimpleNamespace())  # type: ignore[arg-type]
    curves.write([logger], {"b": 1.0}, 1)
    assert points(tmp_path) == {"a": {0: 1.0}, "b": {1: 1.0}}


def test_a_whole_run_with_tensorboard_and_csv(root: str, tmp_path: Path) -> None:
    """All our callbacks; what only TensorBoard can show is left out of the CSV file, which has every number."""
    board = TensorBoardLogger(tmp_path / "board", name="", version="")
    table = CSVLogger(tmp_path / "table", name="", version="")
    callbacks = [SampleLogger(1), HackingWatch(), RLCheckpoint(), RunReport()]
    runs.fit(tmp_path, root, *callbacks, module=runs.grpo(num_steps=3), logger=[board, table])

    with (tmp_path / "table" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["reward/mean"]] == ["1", "2", "3"]
    assert {row["invalid_share"] for row in rows if row["reward/mean"]} == {"0.0"}
    assert [row["step"] for row in rows if row["val/digits/num_utterances"]] == ["0", "3"]
    assert [row["step"] for row in rows if row["val/digits/wer"]] == ["0", "3"]

    # In TensorBoard less, and what is there is the same.
    drawn = points(tmp_path / "board")
    assert set(drawn) < set(rows[0])
    assert {"invalid_share", "val/digits/num_utterances"}.isdisjoint(drawn)
    assert {"reward/mean", "loss", "val/digits/wer"} <= set(drawn)
    rewards = [float(row["reward/mean"]) for row in rows if row["reward/mean"]]
    assert list(drawn["reward/mean"].values()) == pytest.approx(rewards)


def test_a_run_with_a_csv_file_alone(root: str, tmp_path: Path) -> None:
    """Nothing of it needs TensorBoard."""
    table = CSVLogger(tmp_path / "table", name="", version="")
    callbacks = [SampleLogger(1), HackingWatch(), RunReport()]
    runs.fit(tmp_path, root, *callbacks, module=runs.grpo(num_steps=1), logger=table)
    assert "reward/mean" in (tmp_path / "table" / "metrics.csv").read_text()
    assert not list(tmp_path.rglob("events.out*"))


def test_a_run_with_wandb_offline(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number arrives; nothing that only TensorBoard can show is asked of it."""
    wandb = pytest.importorskip("wandb")
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true")):
        monkeypatch.setenv(name, value)
    from lightning.pytorch.loggers import WandbLogger

    logger = WandbLogger(save_dir=str(tmp_path), project="tests", offline=True)
    callbacks = [SampleLogger(1), HackingWatch(), RLCheckpoint(), RunReport()]
    runs.fit(tmp_path, root, *callbacks, module=runs.grpo(num_steps=2), logger=logger)
    summary = dict(logger.experiment.summary)
    wandb.finish()
    assert summary["trainer/global_step"] == 2
    assert {"reward/mean", "invalid_share", "val/digits/wer"} <= set(summary)
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
