"""When a run ends before its last step, which evaluation is its best, and that a resumed run decides the same."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback

from lightning_audiorl.callbacks import EarlyStop, Export, Guard, RLCheckpoint, RunReport
from lightning_audiorl.callbacks.guards import broken_guards, since_best
from tests.callbacks import runs
from tests.callbacks.runs import PutMetrics

WER, LENGTH = "val/digits/wer", "val/digits/length_ratio"


def fit(folder: Path, root: str, *callbacks: Callback, num_steps: int = 4, **settings: Any) -> Any:
    """An evaluation before the first step and after each; the module."""
    module = runs.grpo(num_steps, group_size=2, eval_decodings=None)
    return runs.fit(folder, root, *callbacks, module=module, val_check_interval=1, **settings)


def evaluations(**series: list[float]) -> list[dict[str, Any]]:
    return [
        {"kind": "val", "results": {"digits": dict(zip(series, values, strict=True))}}
        for values in zip(*series.values(), strict=True)
    ]


# --- the rules


@pytest.mark.parametrize(
    ("guard", "start", "expected"),
    [
        (Guard(fall=0.03), 0.8, (0.77, math.inf)),
        (Guard(rise=0.0), 0.8, (-math.inf, 0.8)),
        (Guard(drift=0.1), 20.0, (18.0, 22.0)),
        (Guard(drift=0.1), -20.0, (-22.0, -18.0)),
        (Guard(drift=0.1, rise=1.0, low=19.0), 20.0, (19.0, 21.0)),
        (Guard(high=0.01), 0.0, (-math.inf, 0.01)),
        (Guard(high=0.01), 0.04, (-math.inf, 0.04)),
        (Guard(low=0.5), 0.4, (0.4, math.inf)),
    ],
)
def test_limits(guard: Guard, start: float, expected: tuple[float, float]) -> None:
    assert guard.limits(start) == pytest.approx(expected)


def test_what_does_not_hold_is_named() -> None:
    guards = {LENGTH: Guard(drift=0.1), WER: Guard(high=0.5)}
    assert broken_guards(evaluations(wer=[0.4], length_ratio=[1.0]), guards, "x") == []
    assert (
        broken_guards(evaluations(wer=[0.4, 0.9, 0.5], length_ratio=[1.0, 2.0, 1.1]), guards, "x")
        == []
    )
    assert broken_guards(
        evaluations(wer=[0.4, 0.6], length_ratio=[1.0, math.nan]), guards, "x"
    ) == [
        f"{LENGTH} is nan, to hold it had to be within 0.9 and 1.1; it began at 1",
        f"{WER} is 0.6, to hold it had to be at most 0.5; it began at 0.4",
    ]


@pytest.mark.parametrize(
    ("values", "settings", "expected"),
    [
        ([], ("min", 0.0), 0),
        ([0.5], ("min", 0.0), 0),
        ([0.5, 0.5, 0.6], ("min", 0.0), 2),
        ([0.5, 0.4, 0.6], ("min", 0.0), 1),
        ([0.5, 0.4, 0.6], ("max", 0.0), 0),
        ([0.5, 0.45, 0.41], ("min", 0.1), 2),
        ([0.5, 0.45, 0.39], ("min", 0.1), 0),  # small gains add up
        ([math.nan, math.nan, 0.5, math.nan], ("min", 0.0), 1),
    ],
)
def test_since_best(values: list[float], settings: tuple[Any, float], expected: int) -> None:
    assert since_best(values, *settings) == expected


# --- the run


def test_a_run_that_stands_still_ends_and_says_why(
    root: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two evaluations without a gain; the end is saved, reported and exported as ever."""
    stop, report = EarlyStop(WER, patience=2, min_delta=0.01), RunReport()
    values = PutMetrics([0.5, 0.4, 0.395, 0.42, 0.1])
    with caplog.at_level(logging.WARNING):
        module = fit(tmp_path, root, values, stop, Export(), report, RLCheckpoint())
    why = "val/digits/wer has not improved for 2 evaluations, now 0.42"
    assert module.rl_step == 3
    assert [one["rl_step"] for one in module.evaluations] == [0, 1, 2, 3]
    assert stop.reason == why
    assert f"RL step 3: the run ends here; {why}" in caplog.text
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (written["status"], written["rl_step"], written["num_steps"]) == (
        f"stopped early; {why}",
        3,
        4,
    )
    assert (tmp_path / "export" / "model.safetensors").is_file()
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert [one["rl_step"] for one in last["audiorl"]["evaluations"]] == [0, 1, 2, 3]


def test_a_guard_ends_a_run_that_still_gains(root: str, tmp_path: Path) -> None:
    stop = EarlyStop(WER, guards={LENGTH: Guard(drift=0.1)})
    module = fit(
        tmp_path, root, PutMetrics([0.5, 0.4, 0.3, 0.2, 0.1], [1.0, 1.05, 0.85, 1.0, 1.0]), stop
    )
    assert module.rl_step == 2
    assert (
        stop.reason == f"{LENGTH} is 0.85, to hold it had to be within 0.9 and 1.1; it began at 1"
    )


@pytest.mark.parametrize("stop", [EarlyStop(), EarlyStop(WER, patience=2)])
def test_the_last_step_is_no_early_stop(root: str, tmp_path: Path, stop: EarlyStop) -> None:
    """Nor is anything without a monitor and guards."""
    module = fit(tmp_path, root, PutMetrics([0.5, 0.6, 0.7]), stop, num_steps=2)
    assert (module.rl_step, stop.reason) == (2, None)


def test_a_resumed_run_decides_as_the_whole_one(root: str, tmp_path: Path) -> None:
    """From the checkpoint before, it stops where the whole run stopped; from the last, it takes no further step."""
    values = [0.4, 0.5, 0.45, 0.41, 0.41]

    def settings(patience: int = 3) -> tuple[PutMetrics, EarlyStop, RLCheckpoint]:
        return (
            PutMetrics(values),
            EarlyStop(WER, patience=patience),
            RLCheckpoint(every_n_steps=1, keep=9),
        )

    whole = fit(tmp_path, root, *settings())
    assert whole.rl_step == 3
    folder = tmp_path / "checkpoints"
    for name, num_steps in (("step-000001", 2), ("last", 0)):
        callbacks = settings()
        resumed = fit(tmp_path / name, root, *callbacks, ckpt_path=str(folder / f"{name}.ckpt"))
        assert resumed.rl_step == 3
        assert resumed.trainer.fit_loop.epoch_loop.batch_progress.current.completed == 3
        assert callbacks[1].reason == "val/digits/wer has not improved for 3 evaluations, now 0.41"
        assert len(list((tmp_path / name).rglob("step-*.ckpt"))) == num_steps
    patient = fit(
        tmp_path / "longer", root, *settings(patience=9), ckpt_path=str(folder / "last.ckpt")
    )
    assert patient.rl_step == 4


def test_all_ranks_do_what_the_first_says() -> None:
    """Whatever a rank would have made of its own metrics."""
    module = runs.view(evaluations=evaluations(wer=[0.5, 0.4]), rl_step=1, num_steps=9)
    for said in ("rank 0 says so", None):
        strategy = SimpleNamespace(broadcast=lambda own, said=said: said)
        trainer: Any = SimpleNamespace(
            strategy=strategy,
            state=SimpleNamespace(fn="fit"),
            should_stop=False,
            is_global_zero=False,
            loggers=[],
        )
        EarlyStop(WER, patience=1).on_validation_end(trainer, module)
        assert trainer.should_stop == (said is not None)


def test_the_best_is_the_best_whose_guards_hold(root: str, tmp_path: Path) -> None:
    """Steps 2 and 3 have lower errors, and the wrong length."""
    guards = {LENGTH: Guard(drift=0.1)}
    saving = RLCheckpoint(every_n_steps=0, keep=0, monitor=WER, guards=guards)
    values = PutMetrics([0.5, 0.4, 0.2, 0.1, 0.3], [1.0, 1.0, 0.8, math.nan, 1.1])
    fit(tmp_path, root, values, saving)
    assert (saving.best_step, saving.best_value) == (4, 0.3)
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["audiorl"]["rl_step"] == 4


def test_without_a_best_none_is_exported(
    root: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saving = RLCheckpoint(monitor=WER, guards={LENGTH: Guard(low=0.9)})
    fit(tmp_path, root, PutMetrics([0.5, 0.4], [1.0, 0.8]), Export(best=True), saving, num_steps=1)
    assert not (tmp_path / "export_best").exists()
    assert (
        "no best checkpoint to export: val/digits/wer was never a number whose guards hold"
        in caplog.text
    )


# --- bad input


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (
            lambda: EarlyStop("val/digit/wer"),
            r"EarlyStop\.monitor: no metric 'val/digit/wer' among .*val/digits/wer",
        ),
        (
            lambda: EarlyStop(guards={"wer": Guard(rise=0.1)}),
            r"EarlyStop\.guards: no metric 'wer' among",
        ),
        (
            lambda: RLCheckpoint(monitor=WER, guards={"x": Guard(rise=0.1)}),
            r"RLCheckpoint\.guards: no metric 'x'",
        ),
        (
            lambda: EarlyStop(guards={"val/noise/wer": Guard(rise=0.1)}),
            r"EarlyStop\.guards: val/noise/wer is NaN at the run's first evaluation; a guard wants a metric that",
        ),
    ],
)
def test_what_cannot_be_watched_is_found_before_the_first_step(
    callback: Any, message: str, root: str, tmp_path: Path
) -> None:
    module = runs.grpo(1)
    with pytest.raises(ValueError, match=message):
        runs.fit(tmp_path, root, callback(), module=module)
    assert module.rl_step == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: EarlyStop(WER, patience=0), "want patience >= 1.*got patience=0"),
        (lambda: EarlyStop(WER, min_delta=-0.1), "finite min_delta >= 0"),
        (lambda: EarlyStop(WER, mode="low"), "mode min or max; got .* mode='low'"),  # type: ignore[arg-type]
        (
            lambda: RLCheckpoint(guards={LENGTH: Guard(fall=0.1)}),
            "guards say which evaluation may be best; set monito",
        ),
        (lambda: Guard(), "want one or more of fall, rise, drift"),
        (lambda: Guard(fall=-0.1), r"each >= 0.*fall=-0\.1"),
        (lambda: Guard(low=math.nan), "all of them finite"),
    ],
)
def test_bad_settings(bad: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bad()
