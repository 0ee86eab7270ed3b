"""Attention in blocks of keys: each block gives its result and the normaliser by which blocks are joined."""

from __future__ import annotations

import torch
from torch import Tensor


def by_key_head(x: Tensor, key: Tensor) -> Tensor:
    """[B, heads, S, n] -> [B, key heads, heads / key heads * S, n]: heads that share a key as more queries."""
    num_key_heads = key.shape[1]
    if x.shape[1] == num_key_heads:
        return x
    return x.unflatten(1, (num_key_heads, -1)).flatten(2, 3)


def join(out_a: Tensor, norm_a: Tensor, out_b: Tensor, norm_b: Tensor) -> tuple[Tensor, Tensor]:
    """Two blocks' results [..., Q, D] and log-sum-exps [..., Q] -> those over the keys of both.

    Example: each block has one key of score 0.
        >>> out, norm = join(torch.tensor([[1.0]]), torch.zeros(1), torch.tensor([[3.0]]), torch.zeros(1))
        >>> out, norm.exp()
        (tensor([[2.]]), tensor([2.]))
    """
    # Each block's result counts by its share of the normaliser over both.
    norm = torch.logaddexp(norm_a, norm_b)
    share_a = (norm_a - norm).exp()[..., None]
    share_b = (norm_b - norm).exp()[..., None]
    out = out_a * share_a + out_b * share_b

    # torch.compile loses the gradient of a result that a no-op `to` returns.
    if out.dtype != out_a.dtype:
        out = out.to(out_a.dtype)
    return out, norm


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    causal: bool,
    scaling: float,
    fused: bool,
) -> tuple[Tensor, Tensor]:
    """[N, heads, Q, D] over [N, heads, K, D] -> the result, and the log-sum-exp of the scores [N, heads, Q]."""
    if fused:
        if bias is not None:
            bias = bias.expand(-1, -1, query.shape[2], -1)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=bias, scale=scaling
        )

    scores = _scores(query, key, bias, causal, scaling)
    norm = scores.logsumexp(-1)
    return (scores - norm[..., None]).exp().to(value.dtype) @ value, norm


def attend_backward(
    states: list[Tensor],
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    causal: bool,
    scaling: float,
    fused: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, given [gradient of the result, query, result, log-sum-exp[..., None]]."""
    grad, query, out, norm = states

    if fused:
        if bias is not None:
            bias = bias.expand(-1, -1, query.shape[2], -1)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad,
            query,
            key,
            value,
            out,
            norm.squeeze(-1),
            0.0,
            causal,
            attn_mask=bias,
            scale=scaling,
        )

    weights = (_scores(query, key, bias, causal, scaling) - norm).exp()
    # The gradient of a softmax: weight * (its own gradient - the mean gradient, which is that of the result).
    of_scores = (grad @ value.transpose(-1, -2)).to(weights.dtype)
    of_scores -= (grad * out).sum(-1, keepdim=True, dtype=weights.dtype)
    of_scores = (of_scores.mul_(weights) * scaling).to(query.dtype)

    of_value = weights.to(grad.dtype).transpose(-1, -2) @ grad
    return of_scores @ key, of_scores.transpose(-1, -2) @ query, of_value


def _scores(
    query: Tensor, key: Tensor, bias: Tensor | None, causal: bool, scaling: float
) -> Tensor:
    """[N, heads, Q, K] in float32 at least."""
    scores = (query @ key.transpose(-1, -2)) * scaling
    if scores.dtype != torch.float64:
        scores = scores.float()
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        later = later.triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores if bias is None else scores + bias
