"""Callbacks see a run through `RunView`: every algorithm is one, and a module that is none is told so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lightning_audiorl.callbacks import (
    HackingWatch,
    PhaseProgressBar,
    RLCheckpoint,
    RunReport,
    run_view,
)
from lightning_audiorl.callbacks.view import phase_view
from tests.algorithms.speaking import make_double, make_module
from tests.callbacks import runs


@pytest.mark.parametrize("make", [runs.grpo, runs.sft, make_module, make_double])
def test_an_algorithm_is_a_run(make: Any) -> None:
    module = make()
    assert run_view(module) is module
    assert phase_view(module) is module


@pytest.mark.parametrize(
    "callback", [HackingWatch(), PhaseProgressBar(), RLCheckpoint(), RunReport()]
)
def test_a_foreign_module_is_refused_by_every_callback(callback: Any) -> None:
    foreign: Any = SimpleNamespace(rl_step=3, evaluations=[])
    message = "cannot follow a SimpleNamespace: it has no num_steps, seed, policy, .* what lightning_audiorl.callbacks"
    with pytest.raises(TypeError, match=message):
        callback.on_train_batch_end(SimpleNamespace(should_stop=False), foreign, None, None, 0)


def test_what_is_no_module_has_no_phases() -> None:
    with pytest.raises(TypeError, match=r"it has no clock; .*view\.PhaseView lists"):
        phase_view(SimpleNamespace())
