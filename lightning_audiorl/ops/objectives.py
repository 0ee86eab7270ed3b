"""What is maximised per token. One frozen dataclass per objective; YAML names it by class path.

With r = policy / old policy and A the sample's advantage. Reductions to one number are in `reduce`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from lightning_audiorl.checks import check_number
from lightning_audiorl.ops.advantages import AdvantageKind
from lightning_audiorl.ops.masks import masked, masked_mean
from lightning_audiorl.ops.reduce import Reduction


@dataclass(frozen=True)
class Surrogate:
    """An objective's terms, and counts for logging (to be summed over micro-batches and ranks).

    Args:
        terms: [B, G, T] to be maximised; 0 where masked or unused.
        num_clipped_low: 0-d int64, tokens whose ratio was held from below.
        num_clipped_high: 0-d int64, tokens whose ratio was held from above.
    """

    terms: Tensor
    num_clipped_low: Tensor
    num_clipped_high: Tensor


class Objective(ABC):
    """What an algorithm asks of an objective.

    ``advantage`` and ``drop_zero_variance`` say how `group_advantages` is to be called, ``reduction`` how
    `reduce_terms` and `loss_divisor` are. An argument of this type should default to None, never to an instance:
    jsonargparse would carry the instance's values over into another objective that YAML names.

    Example:
        >>> log_probs = torch.zeros(1, 2, 3, requires_grad=True)  # B = 1 prompt, G = 2 samples, T = 3 tokens
        >>> keep = torch.tensor([[[True, True, False], [True, True, True]]])
        >>> used = torch.tensor([[True, True]])
        >>> advantages = torch.tensor([[1.0, -1.0]])
        >>> GRPO().surrogate(log_probs, None, advantages, keep, used).terms.detach()
        tensor([[[ 1.,  1.,  0.],
                 [-1., -1., -1.]]])
    """

    #: Whether `surrogate` reads ``unique``, which costs a comparison of all samples of a group.
    needs_unique: ClassVar[bool] = False

    reduction: Reduction
    advantage: AdvantageKind
    drop_zero_variance: bool

    def surrogate(
        self,
        log_probs: Tensor,
        old_log_probs: Tensor | None,
        advantages: Tensor,
        keep: Tensor,
        used: Tensor,
        unique: Tensor | None = None,
    ) -> Surrogate:
        """Terms of whole groups.

        Args:
            log_probs: [B, G, T] of the policy, with a graph.
            old_log_probs: [B, G, T] of the policy that sampled, without a graph; None when that is this very policy.
            advantages: [B, G].
            keep: [B, G, T] bool.
            used: [B, G] bool, from `group_advantages`.
            unique: [B, G] bool, from `unique_samples`; read where ``needs_unique`` is True.

        Raises:
            ValueError: for shapes that do not fit.
        """
        return self._surrogate(_inputs(log_probs, old_log_probs, advantages, keep, used, unique))

    @abstractmethod
    def _surrogate(self, inputs: _Inputs) -> Surrogate:
        """The same, from checked inputs."""


class _Inputs(NamedTuple):
    """Everything is 0 or False where masked or unused: [B, G, T] and, for the last three, [B, G, 1] and [B, G]."""

    log_probs: Tensor
    log_ratio: Tensor
    mask: Tensor
    advantages: Tensor
    used: Tensor
    unique: Tensor


def _inputs(
    log_probs: Tensor,
    old_log_probs: Tensor | None,
    advantages: Tensor,
    keep: Tensor,
    used: Tensor,
    unique: Tensor | None,
) -> _Inputs:
    shape = log_probs.shape

    # Where this very policy sampled, the ratio is 1 and its gradient the policy gradient.
    old = log_probs.detach() if old_log_probs is None else old_log_probs.detach()
    unique = used if unique is None else unique
    per_token = (log_probs, old, keep)
    per_sample = (advantages, used, unique)
    tokens_fit = len(shape) == 3 and all(x.shape == shape for x in per_token)
    samples_fit = all(x.shape == shape[:2] for x in per_sample)
    if not tokens_fit or not samples_fit:
        raise ValueError(
            "surrogate: expected log_probs, old_log_probs, keep [B, G, T] and advantages, used, unique [B, G]; got "
            f"{', '.join(str(list(x.shape)) for x in (*per_token, *per_sample))}"
        )

    mask = keep & used.unsqueeze(-1)
    log_probs = masked(log_probs, mask)
    return _Inputs(
        log_probs=log_probs,
        log_ratio=log_probs - masked(old, mask),
        mask=mask,
        advantages=masked(advantages.detach(), used).unsqueeze(-1),
        used=used,
        unique=used & unique,
    )


def _clipped(ratio: Tensor, inputs: _Inputs, clip_low: float, clip_high: float) -> Surrogate:
    """min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)."""
    mask = inputs.mask
    advantages = inputs.advantages
    lowest = 1 - clip_low
    highest = 1 + clip_high

    held = ratio.clamp(lowest, highest)
    terms = torch.minimum(ratio * advantages, held * advantages)

    # The minimum takes the held ratio only where that makes the term smaller.
    held_from_below = mask & (ratio < lowest) & (advantages < 0)
    held_from_above = mask & (ratio > highest) & (advantages > 0)
    return Surrogate(masked(terms, mask), held_from_below.sum(), held_from_above.sum())


@dataclass(frozen=True)
class GRPO(Objective):
    """min(r A, clip(r) A) per token, mean over a sample's tokens, mean over samples (arXiv 2402.03300, eq. 3).

    Example:
        >>> now = torch.tensor([[[0.6, 0.9]]]).log()
        >>> old = torch.tensor([[[0.5, 0.5]]]).log()  # ratios 1.2 and 1.8
        >>> keep = torch.ones(1, 1, 2, dtype=torch.bool)
        >>> surrogate = GRPO(clip_high=0.5).surrogate(now, old, torch.tensor([[2.0]]), keep, keep.any(-1))
        >>> surrogate.terms
        tensor([[[2.4000, 3.0000]]])
        >>> surrogate.num_clipped_high
        tensor(1)

    Args:
        clip_low: r is held at 1 - clip_low where A < 0.
        clip_high: r is held at 1 + clip_high where A > 0.
        reduction: see `reduce_terms`.
        advantage: see `group_advantages`.
        drop_zero_variance: leave groups with equal rewards out of the loss.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    reduction: Reduction = "sample_mean"
    advantage: AdvantageKind = "normalised"
    drop_zero_variance: bool = False

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_number(f"{name}.clip_low", self.clip_low, at_least=0)
        check_number(f"{name}.clip_high", self.clip_high, at_least=0, infinite=True)

    def _surrogate(self, inputs: _Inputs) -> Surrogate:
        return _clipped(inputs.log_ratio.exp(), inputs, self.clip_low, self.clip_high)


@dataclass(frozen=True)
class DrGRPO(GRPO):
    """GRPO without its two biases: advantages are only centred, token sums are divided by a constant length
    (arXiv 2503.20783).

    Example:
        >>> DrGRPO().reduction, DrGRPO().advantage
        ('fixed_length', 'centred')
    """

    reduction: Reduction = "fixed_length"
    advantage: AdvantageKind = "centred"


@dataclass(frozen=True)
class DAPO(GRPO):
    """GRPO with a higher upper clip, mean over all tokens, and groups with equal rewards left out (arXiv 2503.14476,
    eq. 8). Its length penalty is `soft_overlong_penalty`; it uses no KL penalty.

    Example:
        >>> DAPO()
        DAPO(clip_low=0.2, clip_high=0.28, reduction='token_mean', advantage='normalised', drop_zero_variance=True)
    """

    clip_high: float = 0.28
    reduction: Reduction = "token_mean"
    drop_zero_variance: bool = True


@dataclass(frozen=True)
class GSPO(GRPO):
    """GRPO with one ratio per sample, (policy / old policy of the whole completion)^(1 / length) (arXiv 2507.18071,
    eq. 5 and 7).

    Example:
        >>> now = torch.tensor([[[0.5, 0.8]]]).log()
        >>> old = torch.tensor([[[0.5, 0.2]]]).log()  # (1 * 4)^(1 / 2) = 2 for both tokens
        >>> keep = torch.ones(1, 1, 2, dtype=torch.bool)
        >>> GSPO(clip_high=9.0).surrogate(now, old, torch.tensor([[1.0]]), keep, keep.any(-1)).terms
        tensor([[[2., 2.]]])
    """

    # The paper's: the mean over a completion moves far less than the ratio of one token.
    clip_low: float = 3e-4
    clip_high: float = 4e-4

    def _surrogate(self, inputs: _Inputs) -> Surrogate:
        mean_log_ratio = masked_mean(inputs.log_ratio, inputs.mask, dim=-1)
        ratio = mean_log_ratio.exp().unsqueeze(-1)
        return _clipped(ratio, inputs, self.clip_low, self.clip_high)


@dataclass(frozen=True)
class CISPO(Objective):
    """sg(clip(r)) A log pi: clips the weight, so no token loses its gradient (MiniMax-M1, arXiv 2506.13585, eq. 4).

    Example:
        >>> now = torch.tensor([[[0.6, 0.9]]]).log().requires_grad_()
        >>> old = torch.tensor([[[0.5, 0.5]]]).log()  # ratios 1.2 and 1.8
        >>> keep = torch.ones(1, 1, 2, dtype=torch.bool)
        >>> CISPO().surrogate(now, old, torch.tensor([[1.0]]), keep, keep.any(-1)).terms.sum().backward()
        >>> now.grad
        tensor([[[1.2000, 1.2800]]])

    Args:
        clip_low: r weighs at least 1 - clip_low; None sets no lower bound, as in the paper's experiments.
        clip_high: r weighs at most 1 + clip_high.
        reduction: see `reduce_terms`.
        advantage: see `group_advantages`.
        drop_zero_variance: leave groups with equal rewards out of the loss.
    """

    clip_low: float | None = None
    clip_high: float = 0.28
    reduction: Reduction = "token_mean"
    advantage: AdvantageKind = "normalised"
    drop_zero_variance: bool = False

    def __post_init__(self) -> None:
        if self.clip_low is not None:
            check_number("CISPO.clip_low", self.clip_low, at_least=0)
        check_number("CISPO.clip_high", self.clip_high, at_least=0, infinite=True)

    def _surrogate(self, inputs: _Inputs) -> Surrogate:
        # A ratio is never below 0: a bound there is no bound.
        lowest = 0.0 if self.clip_low is None else 1 - self.clip_low
        highest = 1 + self.clip_high

        ratio = inputs.log_ratio.exp().detach()
        terms = ratio.clamp(lowest, highest) * inputs.advantages * inputs.log_probs
        return Surrogate(
            terms=masked(terms, inputs.mask),
            num_clipped_low=(inputs.mask & (ratio < lowest)).sum(),
            num_clipped_high=(inputs.mask & (ratio > highest)).sum(),
        )


@dataclass(frozen=True)
class MWER(Objective):
    """Minimum word error rate training: sum over a group's hypotheses of p_i A_i, p = softmax of their sequence
    log-probs (arXiv 1712.01818, eq. 4).

    Duplicates count once when ``unique`` is given. A baseline cancels in the gradient, so A need only be the negative
    error up to a constant. There is no ratio: ``old_log_probs`` is not read.

    Example:
        >>> log_probs = torch.tensor([[[0.6], [0.2], [0.2]]]).log()  # three samples of one token; the last two are one
        >>> keep = torch.ones(1, 3, 1, dtype=torch.bool)
        >>> used = keep.any(-1)
        >>> unique = torch.tensor([[True, True, False]])
        >>> surrogate = MWER().surrogate(log_probs, None, torch.tensor([[1.0, -1.0, -1.0]]), keep, used, unique)
        >>> surrogate.terms.mean()  # 0.75 * 1 - 0.25 * 1
        tensor(0.5000)

    Args:
        reduction: ``group_mean``, for which the terms are scaled: their reduction is the mean of the sum above.
        advantage: see `group_advantages`.
        drop_zero_variance: leave groups with equal rewards out of the loss.
    """

    needs_unique: ClassVar[bool] = True

    reduction: Reduction = "group_mean"
    advantage: AdvantageKind = "centred"
    drop_zero_variance: bool = False

    def __post_init__(self) -> None:
        # The terms are scaled for this reduction; another would divide by another number.
        if self.reduction != "group_mean":
            raise ValueError(f"MWER: reduction must be 'group_mean', got {self.reduction!r}")

    def _surrogate(self, inputs: _Inputs) -> Surrogate:
        # The lowest finite number, not -inf: the softmax of a group without any counted sample must not be NaN.
        counted = inputs.mask.any(-1) & inputs.unique
        lowest = torch.finfo(inputs.log_probs.dtype).min
        sequence_log_probs = inputs.log_probs.sum(-1).masked_fill(~counted, lowest)
        share = masked(sequence_log_probs.softmax(-1), counted)

        # The reduction divides by the number of used samples; the sum over hypotheses is no mean.
        scale = inputs.used.sum(-1, keepdim=True)
        terms = (share * scale).unsqueeze(-1) * inputs.advantages

        none = torch.zeros((), dtype=torch.int64, device=inputs.mask.device)
        return Surrogate(masked(terms, inputs.mask), num_clipped_low=none, num_clipped_high=none)


def unique_samples(tokens: Tensor, keep: Tensor, used: Tensor | None = None) -> Tensor:
    """[B, G] bool, True for the first of each distinct completion of a group.

    Example:
        >>> tokens = torch.tensor([[[5, 6], [5, 7], [5, 6]]])
        >>> unique_samples(tokens, torch.ones_like(tokens, dtype=torch.bool))
        tensor([[ True,  True, False]])

    Args:
        tokens: [B, G, T] int64.
        keep: [B, G, T] bool; masked tokens are not compared.
        used: [B, G] bool; only used samples are compared, unused ones are False. None uses all.
    """
    if used is None:
        used = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)

    # No token is -1: completions of different lengths differ there.
    kept_tokens = tokens.masked_fill(~keep, -1)
    same = (kept_tokens.unsqueeze(2) == kept_tokens.unsqueeze(1)).all(-1)
    # same[b, g, h]: below the diagonal stand the samples h before g.
    is_repeat = (same & used.unsqueeze(1)).tril(diagonal=-1).any(-1)
    return used & ~is_repeat
