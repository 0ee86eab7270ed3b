"""Correction for a sampler that is another engine than the trainer."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_audiorl.ops.masks import masked


@torch.no_grad()
def truncated_importance_weights(
    log_probs: Tensor, sampler_log_probs: Tensor, keep: Tensor, cap: float | None = None
) -> Tensor | None:
    """Per-token weights min(pi_train / pi_sampler, cap), detached; multiply the objective's terms with them.

    Example:
        >>> trainer = torch.tensor([[[0.5, 0.2, 0.4]]]).log()
        >>> sampler = torch.tensor([[[0.4, 0.4, 0.1]]]).log()
        >>> keep = torch.ones(1, 1, 3, dtype=torch.bool)
        >>> truncated_importance_weights(trainer, sampler, keep, cap=2.0)
        tensor([[[1.2500, 0.5000, 2.0000]]])

    Args:
        log_probs: [B, G, T] of the trainer before the step's first update.
        sampler_log_probs: [B, G, T] that the sampler reported.
        keep: [B, G, T] bool; weights are 1 elsewhere. Take non-finite sampler log-probs out with `keep_finite`.
        cap: the largest weight, 2 is usual; None (off) returns None.

    Raises:
        ValueError: for a cap that is not positive, or shapes that differ.
    """
    if cap is None:
        return None
    if cap <= 0:
        raise ValueError(
            f"truncated_importance_weights: cap must be positive (or None for off), got {cap}"
        )
    if not log_probs.shape == sampler_log_probs.shape == keep.shape:
        raise ValueError(
            "truncated_importance_weights: log_probs, sampler_log_probs and keep must have one shape, got "
            f"{list(log_probs.shape)}, {list(sampler_log_probs.shape)}, {list(keep.shape)}"
        )

    # Masked before the exponential: what stands at padded places may be infinite, or overflow.
    log_weight = masked(log_probs - sampler_log_probs, keep)
    return torch.where(keep, log_weight.exp().clamp(max=cap), 1.0)


@torch.no_grad()
def sampler_mismatch(
    log_probs: Tensor, sampler_log_probs: Tensor, keep: Tensor, cap: float
) -> dict[str, float]:
    """How far a sampler that is another engine is from the trainer: means over tokens, and the largest.

    Args:
        log_probs, sampler_log_probs, keep, cap: see `truncated_importance_weights`.

    Returns:
        ``mismatch_mean`` and ``mismatch_max`` of the absolute difference of log-probs, and ``clipped_share`` of tokens
        whose weight was truncated.

    Example:
        >>> trainer = torch.tensor([[[-1.0, -2.0]]])
        >>> sampler = torch.tensor([[[-1.0, -3.0]]])
        >>> sampler_mismatch(trainer, sampler, torch.ones(1, 1, 2, dtype=torch.bool), cap=2.0)
        {'mismatch_mean': 0.5, 'mismatch_max': 1.0, 'clipped_share': 0.5}
    """
    log_weight = (log_probs - sampler_log_probs)[keep]
    gaps = log_weight.abs()
    return {
        "mismatch_mean": float(gaps.mean()),
        "mismatch_max": float(gaps.max()),
        "clipped_share": float((log_weight.exp() > cap).float().mean()),
    }
