"""Bytes counted on tensors without values: by hand, and against the allocations of a real run."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.profiler import ProfilerActivity, profile

from lightning_audiorl import ops
from lightning_audiorl.commands.plan.meter import Meter
from lightning_audiorl.commands.plan.skeleton import build_skeleton
from lightning_audiorl.models import TextLMPolicy
from lightning_audiorl.models.tts.text_lm import TextContext
from lightning_audiorl.types import Rollout
from tests.planner.runs import SMALL

ROWS, WIDTH, HIDDEN = 64, 32, 128


def two_layers(meter: Meter) -> tuple[nn.Linear, nn.Linear]:
    with meter.fake:
        layers = nn.Linear(WIDTH, HIDDEN, bias=False), nn.Linear(HIDDEN, WIDTH, bias=False)
    meter.leave_out([layer.weight for layer in layers])
    return layers


def test_forward_without_gradients_counted_by_hand() -> None:
    meter = Meter()
    first, second = two_layers(meter)
    with meter, torch.no_grad():
        x = torch.zeros(ROWS, WIDTH)
        y = second(torch.relu(first(x)))
    # Input, the first layer's output and its relu are held together; then the first output goes, the result comes.
    assert meter.peak_bytes == {1.0: 4 * (ROWS * WIDTH + 2 * ROWS * HIDDEN)}
    assert meter.live_bytes == 4 * 2 * ROWS * WIDTH
    del x, y
    assert meter.live_bytes == 0


def test_backward_counted_by_hand_and_gradients_told_apart() -> None:
    meter = Meter((0.5,))
    first, second = two_layers(meter)
    meter.watch_gradients([first.weight, second.weight])
    with meter:
        y = second(torch.relu(first(torch.zeros(ROWS, WIDTH))))
        given = torch.zeros(ROWS, WIDTH)
        meter.reset()
        y.backward(given)
    weight, narrow, wide = 4 * WIDTH * HIDDEN, 4 * ROWS * WIDTH, 4 * ROWS * HIDDEN
    # At the first layer's gradient: input, result, the gradient given, that of relu's input, and both weights'.
    # Before it, where relu is passed: relu's output and the gradient of it beside that of its input; one weight's.
    at_relu = 3 * narrow + 3 * wide + weight
    at_first = 3 * narrow + wide + 2 * weight
    assert meter.peak_bytes[1.0] == max(at_relu, at_first)
    assert meter.peak_bytes[0.5] == max(at_relu - weight // 2, at_first - weight // 2)
    assert first.weight.grad is not None
    del y, given
    assert meter.live_bytes == 2 * weight


def test_masks_have_values_and_what_they_pick_has_a_shape() -> None:
    with Meter():
        keep = torch.tensor([[True, False, True], [False, False, True]])
        values = torch.zeros(2, 3, 100)
        assert int(keep.sum()) == 3
        assert values[keep].shape == (3, 100)
        assert values[..., 0].masked_select(keep).shape == (3,)
        values[keep] = 1.0
        with pytest.raises(DataDependentOutputException):
            float(values.sum())


def score(policy: TextLMPolicy) -> None:
    shape = (2, 3, 8)
    tokens, keep = torch.full(shape, 5), torch.ones(shape, dtype=torch.bool)
    rollout = Rollout(tokens, keep, torch.zeros(shape), torch.ones(shape[:2], dtype=torch.bool))
    hidden = policy.hidden(TextContext(["a", "b"], [1.0, 1.0], [[5] * 40] * 2), rollout)
    scored = ops.token_log_probs(
        hidden, policy.head, tokens.flatten(0, 1), keep.flatten(0, 1), with_entropy=True
    )
    scored.log_probs.sum().backward()


def allocated_peak(policy: TextLMPolicy) -> int:
    """Most bytes that torch's own allocator had given out at once while `score` ran."""
    score(policy)  # the first call makes tables that stay
    policy.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        score(policy)
    events = [event for event in run.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def test_an_update_takes_what_the_allocator_gives_out() -> None:
    meter = Meter()
    policy = build_skeleton(lambda: TextLMPolicy(SMALL), meter)
    assert isinstance(policy, TextLMPolicy)
    with meter:
        score(policy)
    expected = allocated_peak(TextLMPolicy(SMALL).eval())
    assert expected > 100_000
    assert meter.peak_bytes[1.0] == pytest.approx(expected, rel=0.1)
