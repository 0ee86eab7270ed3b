"""On CUDA, a run that stops and goes on ends where one ends that did not stop, whatever the placement."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.gpu.runs import NEEDS_GPU, PLACEMENTS, fit, make_module

pytestmark = NEEDS_GPU


def check(placement: str, path: Path, device: str = "cuda") -> None:
    whole = fit(make_module(4), placement, device)
    first = fit(make_module(4), placement, device, stop_at=2, save=str(path))
    rest = fit(make_module(4), placement, device, ckpt_path=str(path))
    assert first.texts + rest.texts == whole.texts
    assert [m["loss"] for m in first.metrics + rest.metrics] == [m["loss"] for m in whole.metrics]
    assert all(torch.equal(rest.weights[name], value) for name, value in whole.weights.items())
    assert any(not torch.equal(first.weights[name], value) for name, value in whole.weights.items())


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_resume_is_exact(placement: str, tmp_path: Path) -> None:
    check(placement, tmp_path / "half.ckpt")
