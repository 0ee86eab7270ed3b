"""On CUDA, parts are where the table says: parked ones in host memory, and the allocator agrees with the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from lightning_audiorl.strategies.phases import PHASES, Phase
from tests.gpu.runs import NEEDS_GPU, PLACEMENTS, assert_same, fit, make_module

pytestmark = NEEDS_GPU

_MIB = 2**20


class Spy:
    """What stands on the device at the start of each phase of a module's run."""

    def __init__(self, module: Any, device: str = "cuda") -> None:
        self.module, self.device = module, device
        self.before = torch.cuda.memory_allocated() if device == "cuda" else 0
        self.allocated: dict[Phase, int] = {}
        self.resident: dict[Phase, dict[str, int]] = {}
        self.problems: list[str] = []
        self._enter = module.phase
        module.phase = self.phase

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        with self._enter(name):
            self.look(name)
            yield

    def look(self, name: Phase) -> None:
        placement = self.module.trainer.strategy.placement
        self.resident[name] = placement.resident_bytes()
        if self.device == "cuda":
            self.allocated[name] = torch.cuda.memory_allocated() - self.before
        for part in placement.parts:
            for tensor in part.tensors():
                if placement.is_parked(part.name) and tensor.untyped_storage().nbytes():
                    self.problems.append(
                        f"{name}: {part.name} is parked, but a tensor of it holds storage"
                    )
                if name in part.phases and tensor.device.type != self.device:
                    self.problems.append(
                        f"{name}: {part.name} is needed, but a tensor of it is on {tensor.device}"
                    )


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_needed_parts_are_on_the_device_and_parked_ones_are_not(placement: str) -> None:
    module = make_module(2)
    spy = Spy(module)
    fit(module, placement)
    assert list(spy.resident) == list(PHASES)
    assert spy.problems == []
    lm = {
        name: sum(size for part, size in held.items() if "lm" in part)
        for name, held in spy.resident.items()
    }
    assert min(lm["rollout"], lm["update"]) > _MIB
    if placement == "offload":
        assert lm["encode"] == lm["reward"] == 0
        assert spy.resident["rollout"]["encoder"] == 0 < spy.resident["encode"]["encoder"]
        assert spy.resident["update"]["reference"] == 0 < spy.resident["reference"]["reference"]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_allocator_agrees_with_the_ledger(placement: str) -> None:
    module = make_module(2)
    spy = Spy(module)
    fit(module, placement)
    num_tensors = sum(1 for _ in module.policy.parameters()) * 4
    for name, allocated in spy.allocated.items():
        listed = sum(spy.resident[name].values())
        # Blocks are rounded up to 512 bytes; beside the parts there are the batch, the rollout and cuBLAS workspaces.
        assert listed <= allocated <= listed + 512 * num_tensors + 48 * _MIB, name


def test_offload_needs_less_memory_than_resident() -> None:
    peaks = {}
    for placement in ("resident", "offload"):
        witness = fit(make_module(3), placement)
        peaks[placement] = {phase: witness.metrics[-1][f"peak_mib/{phase}"] for phase in PHASES}
    assert all(peaks["offload"][phase] <= peaks["resident"][phase] for phase in PHASES)
    assert max(peaks["offload"].values()) < max(peaks["resident"].values())


def test_parked_values_wait_in_pinned_memory() -> None:
    module = make_module(1)
    pinned: list[bool] = []
    score = module.rewards.score

    def look(groups: Any, panel: Any) -> Any:
        placement = module.trainer.strategy.placement  # type: ignore[attr-defined]
        with placement.all_values():
            pinned.extend(p.is_pinned() for p in module.policy.parameters())
        return score(groups, panel)

    module.rewards.score = look  # type: ignore[method-assign]
    fit(module, "offload")
    assert pinned
    assert all(pinned)


def test_auto_hides_moving_behind_computing() -> None:
    figures = fit(make_module(4), "auto").metrics[-1]
    assert figures["moving/mib"] > 0
    assert 0 < figures["moving/hidden_seconds"] <= figures["moving/seconds"]


def test_phases_never_change_a_number() -> None:
    plain, again = fit(make_module(3), None), fit(make_module(3), None)
    assert_same(again, plain)  # else nothing below would mean anything
    for placement in PLACEMENTS:
        assert_same(fit(make_module(3), placement), plain)
