"""Divergence of the policy from its reference: estimates from sampled tokens, and exact over the vocabulary."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_audiorl.ops.logprobs import Head, over_chunks, scaled_logits, scatter
from lightning_audiorl.ops.masks import masked

KLKind = Literal["k1", "k2", "k3"]


def kl_estimate(
    log_probs: Tensor, ref_log_probs: Tensor, kind: KLKind = "k3", keep: Tensor | None = None
) -> Tensor:
    """Estimate KL(policy || reference) per token, with d = ref_log_probs - log_probs of a token the policy drew.

    k1 = -d, k2 = d^2 / 2, k3 = exp(d) - d - 1 (arXiv 2402.03300, eq. 4). Their values estimate KL(policy ||
    reference); as a loss k2 has its gradient too, k3 that of KL(reference || policy), and k1 none on average.

    Example:
        >>> policy = torch.tensor([0.5, 0.2]).log()
        >>> reference = torch.tensor([0.25, 0.2]).log()
        >>> kl_estimate(policy, reference, "k2")
        tensor([0.2402, 0.0000])
        >>> kl_estimate(policy, reference, "k3")
        tensor([0.1931, 0.0000])

    Args:
        log_probs: any shape, of the policy, in nats; -inf in both counts as no divergence.
        ref_log_probs: the same shape, of the reference.
        kind: the estimator.
        keep: bool mask of the same shape; masked places are 0 in value and gradient.

    Returns:
        Exactly 0 where both log-probs are equal.

    Raises:
        ValueError: for an unknown kind or shapes that differ.
    """
    if kind not in get_args(KLKind):
        raise ValueError(f"kl_estimate: kind must be one of {get_args(KLKind)}, got {kind!r}")
    if log_probs.shape != ref_log_probs.shape:
        raise ValueError(
            f"kl_estimate: log_probs {list(log_probs.shape)} and ref_log_probs {list(ref_log_probs.shape)} differ"
        )

    # Two -inf would be NaN as a difference.
    compare = ~(log_probs.isneginf() & ref_log_probs.isneginf())
    if keep is not None:
        compare = compare & keep

    d = masked(ref_log_probs, compare) - masked(log_probs, compare)
    if kind == "k1":
        return -d
    if kind == "k2":
        return d.square() / 2
    return d.exp() - d - 1


def full_vocabulary_kl(logits: Tensor, ref_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(softmax(logits) || softmax(ref_logits)) over the last dimension (arXiv 2505.17589, DiffRO), [..., V] -> [...].

    Float32 at least. A token that the policy forbids (-inf) adds nothing; one that only the reference forbids makes
    the divergence infinite. Exactly 0 for equal logits.

    Example:
        >>> policy = torch.tensor([0.5, 0.5]).log()
        >>> reference = torch.tensor([0.25, 0.75]).log()
        >>> full_vocabulary_kl(policy, reference)
        tensor(0.1438)

    Args:
        logits: [..., V] of the policy.
        ref_logits: [..., V] of the reference.
        temperature: that of the sampler; 0 counts as 1.
    """
    log_p = scaled_logits(logits, temperature).log_softmax(-1)
    log_q = scaled_logits(ref_logits, temperature).log_softmax(-1)
    allowed = ~log_p.isneginf()
    log_ratio = masked(log_p, allowed) - masked(log_q, allowed)
    return masked(log_p.exp() * log_ratio, allowed).sum(-1)


def chunked_full_kl(
    hidden: Tensor,
    ref_hidden: Tensor,
    head: Head,
    keep: Tensor,
    ref_head: Head | None = None,
    temperature: float = 1.0,
    chunk_size: int = 0,
) -> Tensor:
    """`full_vocabulary_kl` from hidden states at kept positions, without holding the logits of all positions.

    Example:
        >>> head = torch.nn.Linear(4, 10)
        >>> hidden = torch.ones(2, 3, 4)
        >>> keep = torch.ones(2, 3, dtype=torch.bool)
        >>> chunked_full_kl(hidden, hidden, head, keep, chunk_size=2).detach()
        tensor([[0., 0., 0.],
                [0., 0., 0.]])

    Args:
        hidden: [rows, T, D] of the policy.
        ref_hidden: [rows, T, D] of the reference; gets no gradient.
        head: [N, D] -> [N, V] logits of the policy.
        keep: [rows, T] bool; masked places are never read.
        ref_head: the reference's head; None where the head is frozen and shared.
        temperature: that of the sampler; 0 counts as 1.
        chunk_size: positions per call of the heads, as in `token_log_probs`.

    Returns:
        [rows, T] in nats, 0 where ``keep`` is False.
    """
    if hidden.ndim != 3 or hidden.shape != ref_hidden.shape or keep.shape != hidden.shape[:2]:
        raise ValueError(
            "chunked_full_kl: expected hidden and ref_hidden [rows, T, D] and keep [rows, T], got "
            f"{list(hidden.shape)}, {list(ref_hidden.shape)}, {list(keep.shape)}"
        )

    if ref_head is None:
        ref_head = head

    def divergence(hidden: Tensor, ref_hidden: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            ref_logits = ref_head(ref_hidden)
        return full_vocabulary_kl(head(hidden), ref_logits, temperature), index

    chunks = over_chunks(divergence, (hidden[keep], ref_hidden[keep]), chunk_size)
    values = torch.cat([value for value, _ in chunks])
    return scatter(values, keep)
