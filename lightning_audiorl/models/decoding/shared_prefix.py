"""The shared prefix: a prompt and its group's completions in one row, so that every layer sees the prompt once.

A row holds the prompt, padded on the right to P tokens, then G completions of T tokens each. Every completion goes on
from the prompt's last position and attends to the prompt and to itself, never to its neighbours: the same numbers as
G rows of their own. The layout travels as a keyword through the layers, so that a layer that is recomputed under
gradient checkpointing has it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lightning_audiorl.fields import Checked, Shape
from lightning_audiorl.models.decoding import flex_rows
from lightning_audiorl.models.decoding.blocks import (
    attend,
    attend_backward,
    by_key_head,
    join,
)
from lightning_audiorl.models.decoding.group_rows import GroupRows
from lightning_audiorl.models.decoding.shared_clip import HANDED_ON, attend_to_clips
from lightning_audiorl.models.decoding.shared_prompt import SharedPrompt

#: Name of `attention` among transformers' attention implementations.
IMPLEMENTATION = "shared_prefix"

# What layers hand to an attention function that packed rows deal with or need not know. Anything else is refused.
_KNOWN = {
    "scaling", "dropout", "is_causal", "sliding_window",
    "position_ids", "cache_position", "use_cache", "output_attentions",
}  # fmt: skip


@dataclass(frozen=True)
class Layout(Checked):
    """Where things stand in packed rows [B, P + G*T].

    Example: a prompt of two tokens (and one of padding), two completions of two tokens.
        >>> layout = Layout(torch.tensor([[True, True, False]]), group_size=2, length=2)
        >>> layout.positions()
        tensor([[0, 1, 2, 2, 3, 2, 3]])

    Args:
        keep: [B, P] bool, True on a prompt's tokens; a prefix of each row.
        group_size: G.
        length: T, tokens of each completion; padding of short ones stands on the right.
        fused: whether completions attend by torch's fused kernel of the CPU, the only one that tells its normaliser
            (log-sum-exp), which joining two blocks of keys takes; by default on a CPU alone.
        flex: whether rows on CUDA attend by FlexAttention (see `flex_rows`); elsewhere it changes nothing.
    """

    keep: Annotated[Tensor, Shape("B P")]
    group_size: int
    length: int
    fused: bool | None = None
    flex: bool = False

    @property
    def is_flex(self) -> bool:
        """``flex``, where FlexAttention has a backward pass."""
        return self.flex and self.keep.device.type == "cuda"

    @cached_property
    def block_mask(self) -> BlockMask:
        """Of FlexAttention, for all layers of a pass."""
        return flex_rows.block_mask(self.keep, self.group_size, self.length)

    @property
    def is_fused(self) -> bool:
        """``fused``, or by the device where it is None."""
        return self.keep.device.type == "cpu" if self.fused is None else self.fused

    @property
    def num_prompt(self) -> int:
        """P."""
        return self.keep.shape[1]

    def positions(self) -> Tensor:
        """[B, P + G*T] int64: each completion goes on from where its own prompt ends."""
        device = self.keep.device
        lengths = self.keep.sum(-1, keepdim=True)
        prompt = torch.arange(self.num_prompt, device=device).expand(len(lengths), -1)
        completion = torch.arange(self.length, device=device).repeat(self.group_size)
        return torch.cat([prompt, lengths + completion], dim=1)

    def predicting(self, states: Tensor) -> Tensor:
        """States [B, P + G*T, D] -> [B*G, T + 1, D]: the state of a prompt's last token, then its completion's."""
        rows = torch.arange(len(states), device=states.device)
        last_places = self.keep.sum(-1) - 1
        last = states[rows, last_places]
        last = last[:, None, None].expand(-1, self.group_size, -1, -1)
        own = states[:, self.num_prompt :].unflatten(1, (self.group_size, self.length))
        return torch.cat([last, own], dim=2).flatten(0, 1)


def share_prefix(model: PreTrainedModel) -> None:
    """Let ``model`` take packed rows (see `packed_arguments`); without a layout it computes as with "sdpa".

    Raises:
        ValueError: for a model whose attention transformers cannot replace, or where more than attention runs along
            the tokens (a recurrent state, a convolution): it would carry one completion into the next.
    """
    name = type(model).__name__
    others = sorted(
        set(getattr(model.config, "layer_types", None) or ())
        - {"full_attention", "sliding_attention"}
    )
    if others or getattr(model, "_is_stateful", False):
        raise ValueError(
            f"{name} runs along its tokens by more than attention ({', '.join(others) or 'it keeps a state'}): "
            "completions that share a prompt would hear each other"
        )
    # Not those of parts that its configuration knows and that stand elsewhere, such as a codec.
    model.set_attn_implementation({"": IMPLEMENTATION})
    if model.config._attn_implementation != IMPLEMENTATION:
        raise ValueError(
            f"{name} does not go through transformers' attention interface, which prompts shared by a group need"
        )


def packed_arguments(layout: Layout) -> dict[str, Any]:
    """What a model that went through `share_prefix` wants beside its tokens, and its encoder's output if it has one."""
    # Not a mask at all: transformers leaves it alone, and an attention function that ignores the layout chokes on it.
    no_mask = layout.keep.new_empty(1, 1, 1, 0)
    return {
        "attention_mask": no_mask,
        "position_ids": layout.positions(),
        "use_cache": False,
        "shared_prefix": layout,
    }


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    shared_prefix: Layout | None = None,
    shared_prompt: SharedPrompt | None = None,
    clip_rows: GroupRows | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function for transformers: "sdpa", packed rows where there is a layout, prompts and clips that
    rows of a rollout share.

    Args:
        query: [B, heads, S, D].
        key, value: [B, key heads, S, D]; of the encoder's length for cross-attention.
        attention_mask: as transformers makes it; over clips that rows share, [B, 1, 1, F] of the clips' frames.
        shared_prompt: of a rollout's rows; keys and values are then those that the rows appended.
        clip_rows: of a rollout's rows, where cross-attention has keys and values once for each clip.

    Raises:
        ValueError: for what a layer asks for and packed rows do not have (dropout, soft caps, sinks, biases, a window).
    """
    if shared_prompt is not None:
        _refuse_unknown(module, kwargs)
        scaling = _scaling(query, kwargs)
        return shared_prompt.attend(module, query, key, value, scaling), None

    if shared_prefix is None:
        if clip_rows is None:
            clip_rows = getattr(module, HANDED_ON, None)
        # Self-attention has keys and values of every row, and a clip with one row each is no other case.
        if clip_rows is not None and len(key) != len(query):
            frames = attention_mask
            return attend_to_clips(query, key, value, clip_rows, kwargs["scaling"], frames), None
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    causal = kwargs.get("is_causal")
    # A causal layer may leave it to its mask to say so, for which the layout stands here (Moonshine does).
    if not causal:
        causal = getattr(module, "is_causal", causal is None)
    _refuse(module, attention_mask, causal, shared_prefix, kwargs)

    scaling = _scaling(query, kwargs)

    # Autocast knows torch's attention, but not the function that the completions go through.
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query = query.to(dtype)
        key = key.to(dtype)
        value = value.to(dtype)

    # Over the encoder's output every token attends to everything: packed or not is the same.
    if not causal:
        grouped = query.shape[1] != key.shape[1]
        out = scaled_dot_product_attention(query, key, value, scale=scaling, enable_gqa=grouped)
        return out.transpose(1, 2), None
    return _packed_rows(query, key, value, shared_prefix, scaling), None


def _packed_rows(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float
) -> Tensor:
    """Causal self-attention over packed rows, [B, P + G*T, heads, D]; arguments as those of `attention`."""
    parts = [layout.num_prompt, layout.group_size * layout.length]
    if layout.is_flex and parts[1]:
        out = flex_rows.attend(query, key, value, layout.block_mask, scaling)
        return out.transpose(1, 2)

    query_p, query_c = query.split(parts, dim=2)
    key_p, key_c = key.split(parts, dim=2)
    value_p, value_c = value.split(parts, dim=2)

    # The prompts among themselves, as ever: padding on the right is seen by padding alone.
    grouped = query.shape[1] != key.shape[1]
    out = scaled_dot_product_attention(
        query_p, key_p, value_p, is_causal=True, scale=scaling, enable_gqa=grouped
    )
    out = out.transpose(1, 2)
    if not parts[1]:
        return out

    # Heads that share a key: of the completions it is repeated, of the prompt, which is longer, it is not.
    if grouped:
        repeats = query.shape[1] // key.shape[1]
        key_c = key_c.repeat_interleave(repeats, 1)
        value_c = value_c.repeat_interleave(repeats, 1)
    completions = _Completions.apply(query_c, key_p, value_p, key_c, value_c, layout, scaling)
    return torch.cat([out, completions.transpose(1, 2)], dim=1)


def _scaling(query: Tensor, kwargs: dict[str, Any]) -> float:
    """Of the scores, as the layer asks for it or as is usual."""
    scaling: float | None = kwargs.get("scaling")
    return query.shape[-1] ** -0.5 if scaling is None else scaling


def _refuse_unknown(module: nn.Module, kwargs: dict[str, Any]) -> None:
    """Raise ValueError for what a layer asks for beyond plain attention."""
    unknown = sorted(
        key for key, value in kwargs.items() if key not in _KNOWN and value is not None
    )
    if unknown:
        name = type(module).__name__
        raise ValueError(f"{name} asks its attention for {unknown}, which packed rows do not have")


def _refuse(
    module: nn.Module,
    attention_mask: Tensor | None,
    causal: bool,
    layout: Layout,
    kwargs: dict[str, Any],
) -> None:
    """Raise ValueError for what a layer asks for and packed rows do not have."""
    _refuse_unknown(module, kwargs)
    name = type(module).__name__
    if kwargs.get("dropout"):
        raise ValueError(
            f"{name}: packed rows have no attention dropout; set the model's attention dropout to 0"
        )
    if causal != (attention_mask is not None):
        raise ValueError(
            f"{name}: expected causal self-attention, or full cross-attention without a mask"
        )

    window = kwargs.get("sliding_window")
    longest = layout.num_prompt + layout.length
    if causal and window is not None and window < longest:
        raise ValueError(
            f"{name} attends to the last {window} tokens only; prompt and completion have {longest}"
        )


class _Completions(torch.autograd.Function):
    """Each completion over its prompt and over itself: [B, heads, G*T, D].

    The two blocks of keys are attended to apart and joined by their normalisers, and the backward pass of each block
    takes the joint result and normaliser (as ring attention does, arXiv 2310.01889): exact, no prompt key is repeated
    for a sample or a head, and nothing of size queries x keys is held.

    Args of `forward`:
        query: [B, heads, G*T, D].
        key_p, value_p: [B, key heads, P, D] of the prompt.
        key_c, value_c: [B, heads, G*T, D] of the completions.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key_p: Tensor,
        value_p: Tensor,
        key_c: Tensor,
        value_c: Tensor,
        layout: Layout,
        scaling: float,
    ) -> Tensor:
        out_p, norm_p = _over_prompt(query, key_p, value_p, layout, scaling)
        out_c, norm_c = _over_itself(query, key_c, value_c, layout, scaling)

        out, norm = join(out_p, norm_p, out_c, norm_c)

        ctx.save_for_backward(query, key_p, value_p, key_c, value_c, out, norm)
        ctx.layout = layout
        ctx.scaling = scaling
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key_p, value_p, key_c, value_c, out, norm = ctx.saved_tensors
        layout: Layout = ctx.layout
        # With the joint result and normaliser, each block's backward pass gives its part of the joint gradient.
        states = [grad, query, out, norm[..., None]]

        of_prompt = [by_key_head(x, key_p) for x in states]
        grad_query_p, grad_key_p, grad_value_p = attend_backward(
            of_prompt, key_p, value_p, _padding(layout, query), False, ctx.scaling, layout.is_fused
        )

        of_samples = [_by_sample(x, layout) for x in states]
        key_s = _by_sample(key_c, layout)
        value_s = _by_sample(value_c, layout)
        grads = attend_backward(
            of_samples, key_s, value_s, None, True, ctx.scaling, layout.is_fused
        )
        grad_query_c, grad_key_c, grad_value_c = (_by_prompt(x, layout) for x in grads)

        grad_query = grad_query_p.reshape(query.shape) + grad_query_c
        return grad_query, grad_key_p, grad_value_p, grad_key_c, grad_value_c, None, None


def _over_prompt(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float
) -> tuple[Tensor, Tensor]:
    """Completions over their prompts: the result [B, heads, G*T, D] and its log-sum-exp [B, heads, G*T]."""
    out, norm = attend(
        by_key_head(query, key),
        key,
        value,
        _padding(layout, query),
        False,
        scaling,
        layout.is_fused,
    )
    return out.reshape(query.shape), norm.reshape(query.shape[:3])


def _over_itself(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float
) -> tuple[Tensor, Tensor]:
    """Completions each over itself, as `_over_prompt`."""
    query_s, key_s, value_s = (_by_sample(x, layout) for x in (query, key, value))
    out, norm = attend(query_s, key_s, value_s, None, True, scaling, layout.is_fused)
    norm = _by_prompt(norm[..., None], layout).squeeze(-1)
    return _by_prompt(out, layout), norm


def _by_sample(x: Tensor, layout: Layout) -> Tensor:
    """[B, heads, G*T, n] -> [B*G, heads, T, n]."""
    by_sample = x.unflatten(2, (layout.group_size, layout.length))
    return by_sample.transpose(1, 2).flatten(0, 1)


def _by_prompt(x: Tensor, layout: Layout) -> Tensor:
    """[B*G, heads, T, n] -> [B, heads, G*T, n]."""
    by_group = x.unflatten(0, (-1, layout.group_size))
    return by_group.transpose(1, 2).flatten(2, 3)


def _padding(layout: Layout, like: Tensor) -> Tensor:
    """[B, 1, 1, P] of ``like``'s dtype to be added to scores: -inf on the prompts' padding."""
    keep = layout.keep[:, None, None]
    return torch.zeros_like(keep, dtype=like.dtype).masked_fill_(~keep, -torch.inf)


AttentionInterface.register(IMPLEMENTATION, attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
