"""Log-probs and entropy of sampled tokens from hidden states, without holding the logits of all positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Head = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TokenLogProbs:
    """Log-probs of tokens and, when asked for, the entropy of the distributions they were drawn from.

    Args:
        log_probs: [rows, T] float32 (float64 for float64 logits), in nats; 0 where ``keep`` is False.
        entropy: the same shape, in nats; None unless asked for.
    """

    log_probs: Tensor
    entropy: Tensor | None = None


def token_log_probs(
    hidden: Tensor,
    head: Head,
    tokens: Tensor,
    keep: Tensor,
    temperature: float = 1.0,
    support: Tensor | None = None,
    chunk_size: int = 0,
    with_entropy: bool = False,
) -> TokenLogProbs:
    """Score ``tokens`` under softmax(head(hidden) / temperature), at kept positions only.

    Args:
        hidden: [rows, T, D]; the state at t predicts the token at t. Masked places are never read.
        head: [N, D] -> [N, V] logits; -inf forbids a token.
        tokens: [rows, T] int64.
        keep: [rows, T] bool.
        temperature: that of the sampler; 0 (greedy) is scored at 1.
        support: [rows, T, K] int64, -1 padded: the tokens that truncation kept at each step; the distribution is
            renormalised over them.
        chunk_size: positions per call of the head (0 = all at once). With gradients each chunk is recomputed in
            the backward pass, so that logits of one chunk only are held. The number of calls follows from the number
            of kept positions, so a head that communicates (FSDP) must be gathered before.
        with_entropy: also return the entropy; it carries a gradient.

    Returns:
        Values bit-identical with and without gradients; with a graph even when nothing is kept.

    Raises:
        ValueError: for shapes that do not fit, a negative temperature or chunk size, or a kept token that is not in
            its support.
    """
    _check(hidden, tokens, keep, support, temperature, chunk_size)
    flat_tokens = tokens[keep]
    flat_support = None if support is None else support[keep]
    if flat_support is not None and not (flat_support == flat_tokens.unsqueeze(-1)).any(-1).all():
        raise ValueError("token_log_probs: a kept token is not in its support; pass the support of the same rollout")

    def score(hidden: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        logits = scaled_logits(head(hidden), temperature)
        target = flat_tokens[index]
        if flat_support is not None:
            allowed = flat_support[index]
            logits = logits.gather(-1, allowed.clamp(min=0)).masked_fill(allowed < 0, -float("inf"))
            target = (allowed == target.unsqueeze(-1)).int().argmax(-1)
        log_p = logits.log_softmax(-1)
        entropy = _entropy(log_p) if with_entropy else log_p.new_zeros(())
        return log_p.gather(-1, target.unsqueeze(-1)).squeeze(-1), entropy

    parts = over_chunks(score, (hidden[keep],), chunk_size)
    log_probs = scatter(torch.cat([part[0] for part in parts]), keep)
    return TokenLogProbs(log_probs, scatter(torch.cat([part[1] for part in parts]), keep) if with_entropy else None)


def scaled_logits(logits: Tensor, temperature: float) -> Tensor:
    """``logits / temperature`` in float32 at least; temperature 0 (greedy) counts as 1."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits if temperature in (0.0, 1.0) else logits / temperature


def over_chunks(
    function: Callable[..., tuple[Tensor, Tensor]], states: Sequence[Tensor], chunk_size: int
) -> list[tuple[Tensor, Tensor]]:
    """``function(*state chunks, index)`` over slices of the first dimension of ``states``, in order.

    Args:
        function: called with a chunk of each state and the chunk's [n] int64 places in the whole.
        states: tensors of one length N.
        chunk_size: places per call; 0 calls it once, plainly. Otherwise calls are checkpointed where gradients are on.
    """
    index = torch.arange(states[0].shape[0], device=states[0].device)
    if chunk_size == 0:
        return [function(*states, index)]
    chunks = zip(*(tensor.split(chunk_size) for tensor in (*states, index)), strict=True)
    if torch.is_grad_enabled():
        return [checkpoint(function, *chunk, use_reentrant=False) for chunk in chunks]
    return [function(*chunk) for chunk in chunks]


def scatter(values: Tensor, keep: Tensor) -> Tensor:
    """[N] values of the N kept places -> the shape of ``keep``, 0 elsewhere."""
    return values.new_zeros(keep.shape).masked_scatter(keep, values)


def _entropy(log_p: Tensor) -> Tensor:
    return -(log_p.exp() * log_p.masked_fill(log_p == -float("inf"), 0.0)).sum(-1)


def _check(
    hidden: Tensor, tokens: Tensor, keep: Tensor, support: Tensor | None, temperature: float, chunk_size: int
) -> None:
    shape = hidden.shape[:2]
    fits = hidden.ndim == 3 and tokens.shape == shape and keep.shape == shape
    if not fits or (support is not None and (support.ndim != 3 or support.shape[:2] != shape)):
        raise ValueError(
            "token_log_probs: expected hidden [rows, T, D], tokens and keep [rows, T], support [rows, T, K] or None; "
            f"got {list(hidden.shape)}, {list(tokens.shape)}, {list(keep.shape)}, "
            f"{None if support is None else list(support.shape)}"
        )
    if temperature < 0 or chunk_size < 0:
        raise ValueError(f"token_log_probs: want temperature >= 0 and chunk_size >= 0, got {temperature}, {chunk_size}")
