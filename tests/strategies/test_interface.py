"""What the loop asks of a strategy, and what ranks tell each other through it."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn

from lightning_audiorl.engine.distributed import (
    all_reduce,
    clip_gradients,
    equal_passes,
    gather_metrics,
    raise_on_all_ranks,
)
from lightning_audiorl.strategies import (
    PhaseDDP,
    PhaseFSDP,
    PhaseSingleDevice,
    PlainStrategy,
    RLStrategy,
    rl_strategy,
)
from lightning_audiorl.strategies.interface import ReduceOp


class OneOfTwo(PlainStrategy):
    """A rank beside another one, whose numbers are known."""

    def __init__(self, other: float = 0.0, lockstep: bool = False) -> None:
        super().__init__(SingleDeviceStrategy("cpu"))
        self.other = other
        self.lockstep = lockstep

    @property
    def world_size(self) -> int:
        return 2

    def reduce(self, tensor: Tensor, *, reduce_op: ReduceOp) -> Tensor:
        other = torch.tensor(self.other, dtype=tensor.dtype)
        return tensor + other if reduce_op == "sum" else torch.maximum(tensor, other)


def test_ours_are_taken_as_they_are_and_others_wrapped() -> None:
    ours = PhaseSingleDevice()
    assert rl_strategy(ours) is ours
    plain = SingleDeviceStrategy("cpu")
    wrapped = rl_strategy(plain)
    assert isinstance(wrapped, PlainStrategy)
    assert wrapped.strategy is plain


def test_what_each_strategy_says_of_itself() -> None:
    strategies: dict[str, RLStrategy] = {
        "plain": PlainStrategy(SingleDeviceStrategy("cpu")),
        "single": PhaseSingleDevice(),
        "ddp": PhaseDDP(),
        "fsdp": PhaseFSDP(),
    }
    for name, strategy in strategies.items():
        assert strategy.places_parts == (name != "plain")
        assert strategy.lockstep == (name == "fsdp")
        assert strategy.loss_scale == strategy.world_size == 1
        assert strategy.ledger is None, "before a run"


def test_a_plain_strategy_does_nothing_in_a_phase_and_with_parts() -> None:
    weight = nn.Parameter(torch.ones(2))
    plain = PlainStrategy(SingleDeviceStrategy("cpu"))
    with plain.phase("update"):
        plain.shard({"lm": [nn.Linear(1, 1)]})
        plain.sync_gradients([weight])
        plain.gather_weights()
    assert weight.grad is None


def test_sum_and_maximum_over_ranks_leave_the_own_number() -> None:
    number = torch.tensor(2.0, dtype=torch.float64)
    strategy = OneOfTwo(other=5.0)
    assert all_reduce(strategy, number) == 7.0
    assert all_reduce(strategy, number, "max") == 5.0
    assert number == 2.0


def test_passes_are_as_many_as_those_of_the_other_rank_where_layers_are_shared() -> None:
    mine = [[0, 1], [2]]
    assert equal_passes(OneOfTwo(other=4.0), mine) == [([0, 1], True), ([2], True)]
    repeated = [([0, 1], False)] * 2
    together = equal_passes(OneOfTwo(other=4.0, lockstep=True), mine)
    assert together == [([0, 1], True), ([2], True), *repeated]


def test_an_error_of_one_rank_is_one_of_all() -> None:
    with raise_on_all_ranks(OneOfTwo(), "scoring"):
        pass
    with (
        pytest.raises(RuntimeError, match=r"1 other rank\(s\) failed in scoring"),
        raise_on_all_ranks(OneOfTwo(other=1.0), "scoring"),
    ):
        pass
    # A rank's own error is the one that it shows.
    with pytest.raises(KeyError), raise_on_all_ranks(OneOfTwo(other=1.0), "scoring"):
        raise KeyError


def test_one_rank_keeps_its_metrics() -> None:
    metrics = {"loss": float("nan"), "kl": 1.0}
    plain = PlainStrategy(SingleDeviceStrategy("cpu"))
    assert gather_metrics(plain, {"kl": 1.0}, 3.0) == {"kl": 1.0}
    assert gather_metrics(plain, metrics, 3.0) is not metrics


def test_a_norm_is_measured_without_a_limit() -> None:
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients([weight], 0.0) == 5.0
    assert weight.grad.tolist() == [3.0, 4.0]
