"""Advantages of samples against their own group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from torch import Tensor

from lightning_audiorl.fields import Checked, Shape
from lightning_audiorl.ops.masks import masked, masked_mean

AdvantageKind = Literal["normalised", "centred", "leave_one_out"]


@dataclass(frozen=True)
class Advantages(Checked):
    """Advantages of B groups of G samples, and what was left out.

    Args:
        values: [B, G], in the dtype of the rewards; 0 where ``used`` is False.
        used: [B, G] bool; the samples that enter loss and divisor.
        num_zero_variance: groups (with at least two valid samples) whose valid rewards are all equal.
        num_dropped: groups with fewer than two valid samples; none of their samples is used.
        reference: [B], of the reference texts where these are samples of the groups; NaN of a row without one.
    """

    values: Annotated[Tensor, Shape("B G")]
    used: Annotated[Tensor, Shape("B G")]
    num_zero_variance: int
    num_dropped: int
    reference: Annotated[Tensor | None, Shape("B")] = None


def group_advantages(
    rewards: Tensor,
    valid: Tensor,
    kind: AdvantageKind = "normalised",
    eps: float = 1e-4,
    drop_zero_variance: bool = False,
) -> Advantages:
    """Compare every sample with its group's other valid samples.

    - ``normalised``: (R - mean) / (std + eps), std with ddof 1 (GRPO, arXiv 2402.03300; ddof and eps as in TRL).
    - ``centred``: R - mean (Dr. GRPO, arXiv 2503.20783).
    - ``leave_one_out``: R - mean of the others (RLOO, arXiv 2402.14740).

    Example:
        >>> import torch
        >>> rewards = torch.tensor([[0.0, 1.0, 5.0], [2.0, 2.0, 2.0]])
        >>> valid = torch.tensor([[True, True, False], [True, True, True]])
        >>> advantages = group_advantages(rewards, valid, "centred")
        >>> advantages.values
        tensor([[-0.5000,  0.5000,  0.0000],
                [ 0.0000,  0.0000,  0.0000]])
        >>> advantages.num_zero_variance
        1

    Args:
        rewards: [B, G] float; anything, NaN too, where ``valid`` is False.
        valid: [B, G] bool.
        kind: see above.
        eps: added to the standard deviation.
        drop_zero_variance: take groups with equal rewards out of ``used`` (DAPO, arXiv 2503.14476); they otherwise
            stay, with advantage exactly 0.

    Raises:
        ValueError: for an unknown kind, shapes that differ, or a valid reward that is NaN or infinite.
    """
    _check(rewards, valid, kind)

    # A deviation from the mean needs two samples, an unequal pair of them a scale.
    count = valid.sum(-1, keepdim=True)
    enough = count >= 2
    used = valid & enough

    # Equality is judged on the rewards themselves: the deviations of equal rewards need not be 0 after rounding.
    highest = rewards.masked_fill(~valid, -float("inf")).amax(-1, keepdim=True)
    lowest = rewards.masked_fill(~valid, float("inf")).amin(-1, keepdim=True)
    is_flat = enough & (highest == lowest)

    mean = masked_mean(rewards, valid, dim=-1).unsqueeze(-1)
    deviation = masked(rewards - mean, used & ~is_flat)

    # A group of one sample is masked out above; without the clamp it would still be 0 / 0.
    num_others = (count - 1).clamp(min=1)
    if kind == "normalised":
        std = (deviation.square().sum(-1, keepdim=True) / num_others).sqrt()
        values = deviation / (std + eps)
    elif kind == "leave_one_out":
        # R - mean of the others = (R - mean of all) * n / (n - 1).
        values = deviation * count / num_others
    else:
        values = deviation

    return Advantages(
        values=values,
        used=used & ~is_flat if drop_zero_variance else used,
        num_zero_variance=int(is_flat.sum()),
        num_dropped=int((~enough).sum()),
    )


def _check(rewards: Tensor, valid: Tensor, kind: str) -> None:
    if kind not in get_args(AdvantageKind):
        raise ValueError(
            f"group_advantages: kind must be one of {get_args(AdvantageKind)}, got {kind!r}"
        )
    if rewards.ndim != 2 or rewards.shape != valid.shape:
        raise ValueError(
            f"group_advantages: expected rewards and valid [B, G], got {list(rewards.shape)}, {list(valid.shape)}"
        )

    # One NaN in the mean would reach every sample of its group.
    broken = valid & ~rewards.isfinite()
    if broken.any():
        raise ValueError(
            f"group_advantages: {int(broken.sum())} valid reward(s) are NaN or infinite, first at [prompt, sample] "
            f"{broken.nonzero()[0].tolist()}; mark such samples invalid"
        )


def soft_overlong_penalty(lengths: Tensor, max_length: int, buffer: int) -> Tensor:
    """A penalty to be added to the reward of long completions (DAPO, arXiv 2503.14476, eq. 13).

    0 up to ``max_length - buffer`` tokens, then falling in a line to -1 at ``max_length``, and -1 beyond.

    Example:
        >>> import torch
        >>> soft_overlong_penalty(torch.tensor([6, 8, 10, 11]), max_length=10, buffer=4)
        tensor([ 0.0000, -0.5000, -1.0000, -1.0000])

    Args:
        lengths: number of tokens, any shape.
        max_length: the longest completion that is wanted, in tokens.
        buffer: length of the falling part, in tokens.

    Raises:
        ValueError: unless 1 <= buffer <= max_length.
    """
    if not 1 <= buffer <= max_length:
        raise ValueError(
            f"soft_overlong_penalty: want 1 <= buffer <= max_length, got {buffer=}, {max_length=}"
        )
    return ((max_length - buffer - lengths) / buffer).clamp(-1, 0)
