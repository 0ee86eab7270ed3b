"""Packed rows by FlexAttention: its rule, and the same numbers as by blocks; on a CPU uncompiled and forward alone."""

from __future__ import annotations

import pytest
import torch

from lightning_audiorl.models import Finetune, SampleKey
from lightning_audiorl.models.decoding import flex_rows
from lightning_audiorl.models.decoding.shared_prefix import Layout, attention, packed_arguments
from tests.helpers import assert_close
from tests.models.families import DECODING, batch_of, log_probs, make
from tests.models.test_packed import KEEP, SELF_ATTENTION, may_attend, states_of


@pytest.mark.parametrize(("group_size", "length"), [(1, 1), (3, 4), (2, 1)])
def test_the_rule_place_by_place(group_size: int, length: int) -> None:
    layout = Layout(KEEP, group_size, length)
    rule = flex_rows.rule_of(KEEP, length)
    place = torch.arange(KEEP.shape[1] + group_size * length)
    rows = torch.arange(len(KEEP))[:, None, None]
    allowed = rule(rows, torch.tensor(0), place[:, None], place[None])
    assert torch.equal(allowed, may_attend(layout))


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (6, 1)])
def test_rows_as_by_blocks(heads: int, key_heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several blocks of FlexAttention's 128 places, too."""
    layout = Layout(KEEP, group_size=3, length=50, flex=True)
    states = [x.detach() for x in states_of(heads, key_heads, 5 + 3 * 50, torch.float32)[:3]]
    mask = packed_arguments(layout)["attention_mask"]
    assert not layout.is_flex, "on a CPU the setting changes nothing: no backward pass there"
    by_blocks, _ = attention(SELF_ATTENTION, *states, mask, layout, scaling=0.3)

    monkeypatch.setattr(Layout, "is_flex", True)
    calls = []
    inner = flex_rows.attend
    monkeypatch.setattr(flex_rows, "attend", lambda *x: calls.append(1) or inner(*x))
    by_flex, _ = attention(SELF_ATTENTION, *states, mask, layout, scaling=0.3)
    assert calls == [1]
    assert_close(by_flex, by_blocks, "float32")


@pytest.mark.parametrize("family", ["text_lm", "fun_asr_nano"])
def test_the_setting_reaches_the_layers(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make(family)
    context = policy.encode(batch_of(["a", "b", "c"]))
    rollout = policy.sample(context, 3, DECODING, SampleKey(0, 0))
    with torch.no_grad():
        by_blocks = log_probs(policy, context, rollout)

    # As on CUDA, where `Layout.is_flex` follows the setting.
    monkeypatch.setattr(Layout, "is_flex", property(lambda layout: layout.flex))
    policy.finetune = Finetune(flex_attention=True)
    calls = []
    inner = flex_rows.attend
    monkeypatch.setattr(flex_rows, "attend", lambda *x: calls.append(1) or inner(*x))
    with torch.no_grad():
        by_flex = log_probs(policy, context, rollout)
    assert len(calls) == len(policy.backbone.layers)
    assert_close(by_flex, by_blocks, "policy")


def test_without_the_setting_it_is_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Layout, "is_flex", property(lambda layout: layout.flex))
    monkeypatch.setattr(
        flex_rows, "attend", lambda *_: pytest.fail("FlexAttention without being asked")
    )
    policy = make("text_lm")
    context = policy.encode(batch_of(["a", "b"]))
    rollout = policy.sample(context, 2, DECODING, SampleKey(0, 0))
    log_probs(policy, context, rollout).sum().backward()
