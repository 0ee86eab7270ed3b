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

from lightning_audiorl.checks import check_count
from lightning_audiorl.ops.randomness import keyed_generator

RelaxForm = Literal["soft", "straight_through"]
ScheduleKind = Literal["constant", "linear", "exponential"]

# No token but the sample's own may win, rounding included; noise and logits together are of the order of 10.
_MARGIN = 1e-4


@dataclass(frozen=True)
class Schedule:
    """A value that changes over the RL steps.

    Example:
        >>> schedule = Schedule(1.0, 0.5, "linear", steps=100)
        >>> [schedule.at(step, num_steps=1000) for step in (0, 50, 100, 200)]
        [1.0, 0.75, 0.5, 0.5]

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
        if self.kind not in get_args(ScheduleKind):
            raise ValueError(f"{name}: kind is one of {get_args(ScheduleKind)}; got {self.kind!r}")
        check_count(f"{name}.steps", self.steps)
        if (self.kind == "constant") != (self.end is None):
            raise ValueError(
                f"{name}: a constant has no end, another kind has one; got {self.kind!r} with end {self.end}"
            )
        if not all(math.isfinite(value) and value >= 0 for value in self.ends):
            raise ValueError(f"{name}: want finite values >= 0 as start and end, got {self.ends}")
        if self.kind == "exponential" and min(self.ends) <= 0:
            raise ValueError(f"{name}: an exponential schedule never reaches 0; got {self.ends}")

    @property
    def ends(self) -> tuple[float, float]:
        """First and last value.

        Example:
            >>> Schedule(1.0).ends
            (1.0, 1.0)
        """
        last = self.start if self.end is None else self.end
        return self.start, last

    def at(self, step: int, num_steps: int) -> float:
        """The value at RL step ``step`` of a run of ``num_steps``.

        Example:
            >>> Schedule(1.0, 0.25, "exponential").at(500, num_steps=1000)
            0.5
        """
        first, last = self.ends

        # A run without steps stays at the start.
        num_steps = max(1, self.steps or num_steps)
        done = min(1.0, step / num_steps)
        if self.kind == "exponential":
            return first * (last / first) ** done
        return first + (last - first) * done


@dataclass(frozen=True)
class TauSchedule(Schedule):
    """Temperature of the relaxation; low values are close to the hard token, and their gradient is noisy.

    Example:
        >>> TauSchedule(end=0.5, kind="linear").at(50, num_steps=100)
        0.75
    """

    start: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.ends) <= 0:
            raise ValueError(
                f"TauSchedule: tau must be above 0 at start and end, got {self.ends}; for hard tokens: straight_through"
            )


def code_logits(
    logits: Tensor, code_to_token: Tensor, stop_ids: Sequence[int], with_stop: bool = True
) -> Tensor:
    """Logits over the N codes and, as class N, the end of speech; what else the vocabulary has is left out.

    Example:
        >>> logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()  # token 0 is text, 1 and 3 are codes, 2 ends speech
        >>> code_logits(logits, code_to_token=torch.tensor([1, 3]), stop_ids=[2]).exp()
        tensor([0.2000, 0.4000, 0.3000])

    Args:
        logits: [..., V], over the sampler's temperature; -inf where a token is not allowed.
        code_to_token: [N] int64.
        stop_ids: tokens that end speech; class N is drawn where any of them is.
        with_stop: False makes class N impossible: a softmax over the codes alone.

    Returns:
        [..., N + 1]; -inf stays -inf, without a NaN in the gradient.
    """
    stops = logits[..., list(stop_ids)]

    # The gradient of logsumexp over -inf alone would be NaN.
    impossible = stops.isneginf().all(-1)
    any_stop = torch.where(impossible[..., None], 0.0, stops).logsumexp(-1)
    if with_stop:
        stop = torch.where(impossible, -torch.inf, any_stop)
    else:
        stop = torch.full_like(any_stop, -torch.inf)
    return torch.cat([logits[..., code_to_token], stop[..., None]], dim=-1)


def keyed_exponentials(
    keys: Sequence[Sequence[int | str]], num_draws: int, num_classes: int
) -> Tensor:
    """[K, n, num_classes] float32 draws of the standard exponential distribution, on the CPU.

    Example:
        >>> draws = keyed_exponentials([("relax", 0), ("relax", 1)], num_draws=3, num_classes=5)
        >>> draws.shape
        torch.Size([3, 2, 5])
        >>> torch.equal(draws[:1, 1:], keyed_exponentials([("relax", 1)], num_draws=1, num_classes=5))
        True

    Args:
        keys: n keys, one per position; position i's draws depend on ``keys[i]`` alone, the first of them not on K.
        num_draws: K.
        num_classes: of each position.
    """
    # Positions first, so that each one's draws are filled in a row and the first of them do not depend on K.
    by_position = torch.empty(len(keys), num_draws, num_classes)
    for draws, key in zip(by_position, keys, strict=True):
        draws.exponential_(generator=keyed_generator(*key))

    # The logarithm of 0, which float32 can draw, would be infinite.
    return by_position.transpose(0, 1).clamp_(min=torch.finfo(torch.float32).tiny)


def gumbel_noise(exponentials: Tensor) -> Tensor:
    """Fresh Gumbel noise, -log(E): argmax(logits + noise) is a draw from softmax(logits).

    Example:
        >>> gumbel_noise(torch.tensor([0.5, 1.0]))
        tensor([0.6931, -0.0000])
    """
    return -exponentials.log()


@torch.no_grad()
def posterior_noise(logits: Tensor, own: Tensor, exponentials: Tensor) -> Tensor:
    """Gumbel noise as it must have been for ``own`` to be drawn: argmax(logits + noise) is always ``own``.

    The winner's value is a Gumbel variable at logsumexp(logits), the others' are cut off below it (arXiv 2010.04838).

    Example:
        >>> logits = torch.tensor([[5.0, 0.0, 0.0]])
        >>> draws = keyed_exponentials([("relax", 0)], num_draws=4, num_classes=3)
        >>> noise = posterior_noise(logits, own=torch.tensor([2]), exponentials=draws)
        >>> (logits + noise).argmax(-1).flatten()  # the unlikely class wins, since it was drawn
        tensor([2, 2, 2, 2])

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

    # The maximum of all classes is Gumbel at their logsumexp, and independent of which of them attains it.
    index = own.expand(*exponentials.shape[:-1], 1)
    top = logits.logsumexp(-1, keepdim=True) - exponentials.gather(-1, index).log()

    # Each other class is Gumbel at its own logit, truncated at that maximum.
    others = -(exponentials + (logits - top).exp()).log()
    limit = torch.where(logits.isneginf(), torch.inf, top - _MARGIN - logits)
    return torch.minimum(others, limit).scatter(-1, index, top - own_logit)


def relax(
    logits: Tensor, tau: float, noise: Tensor, form: RelaxForm = "straight_through"
) -> Tensor:
    """softmax((logits + noise) / tau), averaged over the draws; exactly 0 where logits are -inf.

    Example:
        >>> logits = torch.tensor([0.25, 0.75]).log()
        >>> noise = torch.zeros(1, 2)  # K = 1 draw
        >>> relax(logits, 1.0, noise, "soft")
        tensor([0.2500, 0.7500])
        >>> relax(logits, 1.0, noise, "straight_through")
        tensor([0., 1.])

    Args:
        logits: [..., C], with a graph.
        tau: above 0.
        noise: [K, ..., C], without one.
        form: "soft"; or "straight_through": one-hot values of the winners, with the soft form's gradient.

    Returns:
        [..., C], adding up to 1.
    """
    if tau <= 0 or form not in get_args(RelaxForm):
        raise ValueError(
            f"relax: want tau > 0 and a form of {get_args(RelaxForm)}; got {tau}, {form!r}"
        )

    noisy = logits + noise
    soft = (noisy / tau).softmax(-1).mean(0)
    if form == "soft":
        return soft

    winner = noisy.argmax(-1, keepdim=True)
    hard = torch.zeros_like(noisy).scatter_(-1, winner, 1.0).mean(0)
    # The value of the first, the gradient of the second.
    return hard + (soft - soft.detach())


def soft_embedding(weights: Tensor, table: Tensor) -> Tensor:
    """[..., C] weights of the rows of ``table`` [C, D] -> [..., D]; of a one-hot row, that row of the table.

    Example:
        >>> table = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> soft_embedding(torch.tensor([0.25, 0.75]), table)
        tensor([0.2500, 0.7500])
    """
    return weights @ table
