"""Prompts shared by a group: packed rows against explicit masks, against every sample alone, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    FalconH1Config,
    GPT2Config,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    RwkvConfig,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lightning_audiorl.models import SampleKey, TextLMPolicy
from lightning_audiorl.models.decoding import shared_prefix
from lightning_audiorl.models.decoding.shared_prefix import Layout, attention, packed_arguments
from lightning_audiorl.models.tiny import word_tokenizer
from tests.helpers import assert_close, assert_gradients_close
from tests.models.families import DECODING, WORDS, batch_of, log_probs
from tests.models.naive import naive_log_probs

KEEP = torch.tensor(
    [[True, True, True, False, False], [True] * 5, [True, False, False, False, False]]
)
SELF_ATTENTION = SimpleNamespace(is_causal=True)
CROSS_ATTENTION = SimpleNamespace(is_causal=False)


@pytest.fixture(params=["fused", "plain"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to attend to a block of keys; the plain one is for devices without the fused one."""
    if request.param == "plain":
        monkeypatch.setattr(Layout, "is_fused", False)


def test_layout_worked_example() -> None:
    layout = Layout(torch.tensor([[True, True, False], [True, True, True]]), group_size=2, length=2)
    assert layout.positions().tolist() == [[0, 1, 2, 2, 3, 2, 3], [0, 1, 2, 3, 4, 3, 4]]
    states = torch.arange(14.0).view(2, 7, 1)
    assert layout.predicting(states).squeeze(-1).tolist() == [
        [1, 3, 4],
        [1, 5, 6],
        [9, 10, 11],
        [9, 12, 13],
    ]
    nothing = Layout(layout.keep, group_size=2, length=0)
    assert nothing.predicting(states[:, :3]).squeeze(-1).tolist() == [[1], [1], [9], [9]]


def states_of(heads: int, key_heads: int, length: int, dtype: torch.dtype) -> list[Tensor]:
    """Query, key, value [B, heads, S, 8] as transformers hands them over, transposed; and an outer gradient."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(len(KEEP), length, num, 8) for num in (heads, key_heads, key_heads, heads)]
    *states, outer = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return [*(x.transpose(1, 2).requires_grad_() for x in states), outer]


def may_attend(layout: Layout) -> Tensor:
    """[B, S, S] by the rule, place by place."""
    num, own = layout.num_prompt, layout.length
    size = num + layout.group_size * own
    out = torch.zeros(len(layout.keep), size, size, dtype=torch.bool)
    for b in range(len(layout.keep)):
        for i in range(size):
            for j in range(i + 1):
                same = j >= num and (j - num) // own == (i - num) // own
                out[b, i, j] = i < num or same or (j < num and bool(layout.keep[b, j]))
    return out


@pytest.mark.usefixtures("_either_way")
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_attention_equals_an_explicit_mask(heads: int, key_heads: int, dtype: torch.dtype) -> None:
    layout = Layout(KEEP, group_size=3, length=4)
    query, key, value, outer = states_of(heads, key_heads, 5 + 3 * 4, dtype)
    outer[:, :5] *= KEEP[..., None, None]
    mask = packed_arguments(layout)["attention_mask"]
    results = []
    for name in ("packed", "explicit"):
        for x in (query, key, value):
            x.grad = None
        if name == "packed":
            out, _ = attention(
                SELF_ATTENTION, query, key, value, mask, layout, scaling=0.3, sliding_window=None
            )
        else:
            more = [x.repeat_interleave(heads // key_heads, 1) for x in (key, value)]
            allowed = may_attend(layout)[:, None]
            out = nn.functional.scaled_dot_product_attention(
                query, *more, allowed, scale=0.3
            ).transpose(1, 2)
        (out * outer).sum().backward()
        results.append(
            [out.detach()[:, 5:], out.detach()[:, :5][KEEP], query.grad, key.grad, value.grad]
        )
    for one, other in zip(*results, strict=True):
        assert_close(one, other, "float64" if dtype == torch.float64 else "float32")


@pytest.mark.usefixtures("_either_way")
def test_gradcheck() -> None:
    layout = Layout(KEEP, group_size=2, length=2)
    mask = packed_arguments(layout)["attention_mask"]
    *states, _ = states_of(2, 1, 5 + 2 * 2, torch.float64)
    states = [x[..., :2].detach().requires_grad_() for x in states]
    assert torch.autograd.gradcheck(
        lambda *x: attention(SELF_ATTENTION, *x, mask, layout)[0], states
    )


@pytest.mark.usefixtures("_either_way")
def test_padding_and_neighbours_are_not_heard() -> None:
    layout = Layout(KEEP, group_size=3, length=4)
    *states, _ = states_of(4, 4, 5 + 3 * 4, torch.float32)
    mask = packed_arguments(layout)["attention_mask"]
    before, _ = attention(SELF_ATTENTION, *states, mask, layout)
    changed = [x.detach().clone() for x in states]
    for x in changed:
        x[0, :, 3:5] = 99.0  # padding of the first prompt
        x[1, :, 9:13] = -99.0  # the second completion of the second prompt
        x[2, :, 8] = 99.0  # the last token of the first completion of the third prompt
    after, _ = attention(SELF_ATTENTION, *changed, mask, layout)
    same = torch.ones(3, 17, dtype=torch.bool)
    same[0, 3:5], same[1, 9:13], same[2, 8] = False, False, False
    assert_close(after[same], before[same], "exact")
    assert (after[~same] - before[~same]).abs().amin() > 0


def test_without_a_layout_it_is_sdpa() -> None:
    query, key, value, _ = states_of(4, 2, 6, torch.float32)
    module = SimpleNamespace(is_causal=True, num_key_value_groups=2)
    expected, _ = sdpa_attention_forward(module, query, key, value, None, scaling=0.3)
    assert_close(attention(module, query, key, value, None, scaling=0.3)[0], expected, "exact")


def test_cross_attention_is_full() -> None:
    layout = Layout(KEEP, group_size=2, length=2)
    query, *_ = states_of(4, 4, 9, torch.float32)
    _, key, value, _ = states_of(4, 4, 7, torch.float32)
    expected = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    assert_close(attention(CROSS_ATTENTION, query, key, value, None, layout)[0], expected)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"softcap": 30.0}, r"asks its attention for \['softcap'\]"),
        ({"s_aux": torch.zeros(4)}, r"asks its attention for \['s_aux'\]"),
        ({"position_bias": torch.zeros(1)}, r"asks its attention for \['position_bias'\]"),
        ({"dropout": 0.1}, "set the model's attention dropout to 0"),
        ({"sliding_window": 8}, "attends to the last 8 tokens only; prompt and completion have 9"),
    ],
)
def test_what_packed_rows_do_not_have_is_refused(asked: dict[str, object], message: str) -> None:
    layout = Layout(KEEP, group_size=3, length=4)
    *states, _ = states_of(4, 4, 5 + 3 * 4, torch.float32)
    mask = packed_arguments(layout)["attention_mask"]
    with pytest.raises(ValueError, match=message):
        attention(SELF_ATTENTION, *states, mask, layout, **asked)
    harmless = {
        "softcap": None,
        "dropout": 0.0,
        "sliding_window": 9,
        "position_ids": layout.positions(),
    }
    assert attention(SELF_ATTENTION, *states, mask, layout, **harmless)[0].isfinite().all()


def test_a_layer_may_leave_it_to_its_mask_to_be_causal() -> None:
    layout = Layout(KEEP, group_size=3, length=4)
    *states, _ = states_of(4, 4, 5 + 3 * 4, torch.float32)
    mask = packed_arguments(layout)["attention_mask"]
    expected, _ = attention(SELF_ATTENTION, *states, mask, layout)
    out, _ = attention(SELF_ATTENTION, *states, mask, layout, is_causal=False)
    assert_close(out, expected, "exact")
    with pytest.raises(ValueError, match="expected causal self-attention"):
        attention(CROSS_ATTENTION, *states, mask, layout)


def test_an_attention_that_ignores_the_layout_fails() -> None:
    layout = Layout(torch.ones(1, 1, dtype=torch.bool), group_size=2, length=2)
    arguments = packed_arguments(layout)
    *states, _ = states_of(4, 4, 5, torch.float32)
    with pytest.raises(RuntimeError, match="must match"):
        sdpa_attention_forward(SELF_ATTENTION, *states, **arguments)


# --- models of other kinds

_SIZES = {
    "vocab_size": 5 + len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_LLAMA_LIKE = _SIZES | {"num_key_value_heads": 2, "intermediate_size": 48, "initializer_range": 0.5}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_LLAMA_LIKE),
    "qwen2": Qwen2Config(**_LLAMA_LIKE),
    "qwen3": Qwen3Config(**_LLAMA_LIKE, head_dim=16),
    "mistral": MistralConfig(**_LLAMA_LIKE, sliding_window=64),
    "gpt2": GPT2Config(
        vocab_size=9,
        n_embd=32,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.5,
    ),
}


def text_policy(config: PreTrainedConfig, folder: Path) -> TextLMPolicy:
    torch.manual_seed(0)
    tokenizer = word_tokenizer(WORDS)
    for name in ("bos", "eos", "pad"):
        setattr(config, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    policy = TextLMPolicy(str(folder)).eval()
    policy.tokenizer = tokenizer  # transformers may have another one for this kind of model
    policy.allowed = policy.allowed.new_tensor(
        [False, False, True, False, False, *[True] * len(WORDS)]
    )
    return policy


@pytest.mark.parametrize("kind", CONFIGS)
def test_other_language_models(kind: str, tmp_path: Path) -> None:
    policy, batch = text_policy(CONFIGS[kind], tmp_path), batch_of(["a", "b", "c"])
    context = policy.encode(batch)
    rollout = policy.sample(context, 3, DECODING, SampleKey(0, 0))
    weights = (
        torch.randn(rollout.tokens.shape, generator=torch.Generator().manual_seed(0)) * rollout.keep
    )
    gradients = []
    for scored in (
        log_probs(policy, context, rollout),
        naive_log_probs("text_lm", policy, batch, rollout),
    ):
        assert_close(scored, rollout.log_probs, "policy")
        (scored * weights).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.trainable().values()]))
        policy.zero_grad()
    assert_gradients_close(*gradients)
    assert len(set(context.prompt_lengths)) > 1


def test_a_window_that_the_prompt_outgrows_is_refused(tmp_path: Path) -> None:
    policy = text_policy(MistralConfig(**_LLAMA_LIKE, sliding_window=4), tmp_path)
    context = policy.encode(batch_of(["a", "b"]))
    with pytest.raises(ValueError, match="MistralAttention attends to the last 4 tokens only"):
        policy.hidden(context, policy.targets(context, ["one", "two"]))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FalconConfig(**_SIZES), "does not go through transformers' attention interface"),
        (
            FalconH1Config(**_LLAMA_LIKE, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8),
            r"more than attention \(hybrid\)",
        ),
        (RwkvConfig(vocab_size=9, hidden_size=32, num_hidden_layers=2), "it keeps a state"),
        (
            Lfm2Config(**_LLAMA_LIKE, layer_types=["conv", "full_attention"]),
            r"more than attention \(conv\)",
        ),
    ],
)
def test_models_that_cannot_take_packed_rows_are_refused(
    config: PreTrainedConfig, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        shared_prefix.share_prefix(AutoModelForCausalLM.from_config(config))
