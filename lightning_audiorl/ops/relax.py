"""Gumbel-Softmax over speech codes: a sampled token as a point in the simplex that gradients pass through.

Sources: Gumbel-Softmax arXiv 1611.01144; noise given the own sample, and its average, arXiv 2010.04838; DiffRO arXiv
2507.05911.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_audiorl.ops.randomness import keyed_generator

RelaxForm = Literal["soft", "straight_through"]
ScheduleKind = Literal["constant", "linear", "exponential"]

# Nobody but the own token may win, rounding included; noise and logits together are of the order of 10.
_MARGIN = 1e-4


@dataclass(frozen=True)
class Schedule:
    """A value that changes over the RL steps.

    Example: ``Schedule(1.0, 0.5, "linear", 100)`` is 1.0 at step 0, 0.75 at step 50, and 0.5 from step 100 on.

    Args:
        start: value at step 0.
        end: value at the end; None keeps ``start``.
        kind: "constant", "linear", or "exponential" (equal factors in equal times; both ends positive).
        steps: RL steps until ``end`` is reached; 0 is the whole run.
    """

    start: float
    end: float | None = None
    kind: ScheduleKind = "constant"
    steps: int = 0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.kind not in get_args(ScheduleKind) or self.steps < 0:
            raise ValueError(
                f"{name}: kind is one of {get_args(ScheduleKind)}, steps >= 0; got {self.kind!r}, {self.steps}"
            )
        if (self.kind == "constant") != (self.end is None):
            raise ValueError(
                f"{name}: a constant has no end, another kind has one; got {self.kind!r} with end {self.end}"
            )
        if not all(math.isfinite(value) and value >= 0 for value in self.ends):
            raise ValueError(f"{name}: want finite values >= 0, got {self.ends}")
        if self.kind == "exponential" and min(self.ends) <= 0:
            raise ValueError(f"{name}: an exponential schedule never reaches 0; got {self.ends}")

    @property
    def ends(self) -> tuple[float, float]:
        """First and last value."""
        return self.start, self.start if self.end is None else self.end

    def at(self, step: int, num_steps: int) -> float:
        """The value at RL step ``step`` of a run of ``num_steps``."""
        first, last = self.ends
        done = min(1.0, step / max(1, self.steps or num_steps))
        if self.kind == "exponential":
            return first * (last / first) ** done
        return first + (last - first) * done


@dataclass(frozen=True)
class TauSchedule(Schedule):
    """Temperature of the relaxation; low values are close to the hard token, and their gradient is noisy."""

    start: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.ends) <= 0:
            raise ValueError(f"TauSchedule: tau must be above 0, got {self.ends}; for hard tokens use straight_through")


def code_logits(logits: Tensor, code_to_token: Tensor, stop_ids: Sequence[int], with_stop: bool = True) -> Tensor:
    """Logits over the N codes and, as class N, the end of speech; what else the vocabulary has is left out.

    Args:
        logits: [..., V], over the sampler's temperature; -inf where a token is not allowed.
        code_to_token: [N] int64.
        stop_ids: tokens that end speech; class N is drawn where any of them is.
        with_stop: False makes class N impossible: a softmax over the codes alone.

    Returns:
        [..., N + 1]; -inf stays -inf, without a NaN in the gradient.
    """
    stops = logits[..., list(stop_ids)]
    never = stops.isneginf().all(-1)
    either = torch.where(never[..., None], 0.0, stops).logsumexp(-1)
    stop = torch.where(never, -torch.inf, either) if with_stop else torch.full_like(either, -torch.inf)
    return torch.cat([logits[..., code_to_token], stop[..., None]], dim=-1)


def keyed_exponentials(keys: Sequence[Sequence[int | str]], num_draws: int, num_classes: int) -> Tensor:
    """[K, n, num_classes] float32 draws of the standard exponential distribution, on the CPU.

    Args:
        keys: n keys, one per position; position i's draws depend on ``keys[i]`` alone, the first of them not on K.
        num_draws: K.
        num_classes: of each position.
    """
    out = torch.empty(len(keys), num_draws, num_classes)
    for place, key in zip(out, keys, strict=True):
        place.exponential_(generator=keyed_generator(*key))
    return out.transpose(0, 1).clamp_(min=torch.finfo(torch.float32).tiny)


def gumbel_noise(exponentials: Tensor) -> Tensor:
    """Fresh Gumbel noise, -log(E): argmax(logits + noise) is a draw from softmax(logits)."""
    return -exponentials.log()


@torch.no_grad()
def posterior_noise(logits: Tensor, own: Tensor, exponentials: Tensor) -> Tensor:
    """Gumbel noise as it must have been for ``own`` to be drawn: argmax(logits + noise) is always ``own``.

    The winner's value is a Gumbel variable at logsumexp(logits), the others' are cut off below it (arXiv 2010.04838).

    Args:
        logits: [..., C]; -inf where a class is impossible. Detached.
        own: [...] int64, the class that was drawn, a possible one.
        exponentials: [K, ..., C] standard exponential draws.

    Returns:
        [K, ..., C] without a graph.

    Raises:
        ValueError: for an own class that is impossible under ``logits``.
    """
    own = own.unsqueeze(-1)
    own_logit = logits.gather(-1, own)
    if own_logit.isneginf().any():
        raise ValueError(
            "posterior_noise: an own token is impossible under its logits; the rollout must come from this policy "
            "under the same allowed tokens"
        )
    index = own.expand(*exponentials.shape[:-1], 1)
    top = logits.logsumexp(-1, keepdim=True) - exponentials.gather(-1, index).log()
    others = -(exponentials + (logits - top).exp()).log()
    limit = torch.where(logits.isneginf(), torch.inf, top - _MARGIN - logits)
    return torch.minimum(others, limit).scatter(-1, index, top - own_logit)


def relax(logits: Tensor, tau: float, noise: Tensor, form: RelaxForm = "straight_through") -> Tensor:
    """softmax((logits + noise) / tau), averaged over the draws; exactly 0 where logits are -inf.

    Args:
        logits: [..., C], with a graph.
        tau: above 0.
        noise: [K, ..., C], without one.
        form: "soft"; or "straight_through": one-hot values of the winners, with the soft form's gradient.

    Returns:
        [..., C], adding up to 1.
    """
    if tau <= 0 or form not in get_args(RelaxForm):
        raise ValueError(f"relax: want tau > 0 and a form of {get_args(RelaxForm)}; got {tau}, {form!r}")
    noisy = logits + noise
    soft = (noisy / tau).softmax(-1).mean(0)
    if form == "soft":
        return soft
    hard = torch.zeros_like(noisy).scatter_(-1, noisy.argmax(-1, keepdim=True), 1.0).mean(0)
    return hard + (soft - soft.detach())


def soft_embedding(weights: Tensor, table: Tensor) -> Tensor:
    """[..., C] weights of the rows of ``table`` [C, D] -> [..., D]; of a one-hot row, that row of the table."""
    return weights @ table
