"""What processes tell each other in a step: counts, gradient norm, metrics, and that one of them failed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_audiorl.metrics.specs import reduction_over_ranks
from lightning_audiorl.strategies.interface import ReduceOp, RLStrategy


def all_reduce(strategy: RLStrategy, value: Tensor | float, how: ReduceOp = "sum") -> float:
    """Sum (or ``max``) of a number over ranks, in float64.

    Args:
        strategy: through which ranks talk.
        value: this rank's number; a tensor of one element is detached first.
        how: "sum" or "max".
    """
    number = torch.as_tensor(value, dtype=torch.float64).detach().to(strategy.root_device)

    # Reduced in place: the caller's tensor may be this very one.
    return float(strategy.reduce(number.clone(), reduce_op=how))


def equal_passes(strategy: RLStrategy, pieces: list[list[int]]) -> list[tuple[list[int], bool]]:
    """The micro-batches of a batch, and whether each counts.

    Where ranks compute layer by layer together (FSDP), all take as many passes as the one that has most; the passes
    too many repeat a micro-batch and count nothing.

    Args:
        strategy: through which ranks talk.
        pieces: micro-batches of this rank, each as places in the batch; at least one.
    """
    passes = [(piece, True) for piece in pieces]
    if not strategy.lockstep:
        return passes

    most = int(all_reduce(strategy, len(pieces), "max"))
    return passes + [(pieces[0], False)] * (most - len(pieces))


@contextmanager
def raise_on_all_ranks(strategy: RLStrategy, doing: str) -> Iterator[None]:
    """An exception inside, on one rank, is one on all of them, before anyone waits for the others in vain.

    Args:
        strategy: through which ranks talk.
        doing: what is done inside, for the error of the other ranks.

    Raises:
        RuntimeError: where only another rank failed.
    """
    if strategy.world_size == 1:
        yield
        return

    error: Exception | None = None
    try:
        yield
    except Exception as raised:  # noqa: BLE001  it is raised again below, when the others know
        error = raised

    num_failed = int(all_reduce(strategy, float(error is not None)))
    if error is not None:
        raise error
    if num_failed:
        raise RuntimeError(
            f"{num_failed} other rank(s) failed in {doing}; see their output for the reason"
        )


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Clip by the norm over all gradients, whole or sharded; returns the norm before clipping.

    Gradients whose norm is not finite stay as they are: clipped, the NaN of one would be in all of them.

    Args:
        parameters: those that train.
        max_norm: 0 only measures.

    Example:
        >>> weight = nn.Parameter(torch.zeros(2))
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> clip_gradients([weight], max_norm=0.0)
        5.0
        >>> clip_gradients([weight], max_norm=1.0), weight.grad
        (5.0, tensor([0.6000, 0.8000]))
    """
    parameters = list(parameters)
    limit = max_norm or math.inf

    sharded = [p.grad for p in parameters if isinstance(p.grad, DTensor)]
    if not sharded:
        grads = [p.grad for p in parameters if p.grad is not None]
        total = nn.utils.get_total_norm(grads)
        if total.isfinite():
            nn.utils.clip_grads_with_norm_(parameters, limit, total)
        return float(total)

    # A rank holds a shard of some gradients, whose squares are added over ranks, and the whole of the others, which
    # are the same on every rank.
    shards = [grad.to_local() for grad in sharded]
    whole = [p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]
    squares = torch.stack([shard.square().sum() for shard in shards]).sum()
    torch.distributed.all_reduce(squares)
    norm = (squares + sum(grad.square().sum() for grad in whole)).sqrt()
    if not norm.isfinite():
        return float(norm)

    # The same small term as in torch's clip_grad_norm_.
    factor = float((limit / (norm + 1e-6)).clamp(max=1.0))
    for grad in (*shards, *whole):
        grad.mul_(factor)
    return float(norm)


def merge_metrics(ranks: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
    """One set of metrics from those of all ranks: counts are added, times and sizes are the largest, the rest means.

    Args:
        ranks: weight (number of prompts) and metrics of each rank. A NaN is left out; NaN only where no rank has a
            number.

    Example:
        >>> first = {"reward": 1.0, "refill/prompts": 2.0, "seconds/rollout": 3.0}
        >>> second = {"reward": 0.0, "refill/prompts": 5.0, "seconds/rollout": 4.0}
        >>> merge_metrics([(3, first), (1, second)])
        {'reward': 0.75, 'refill/prompts': 7.0, 'seconds/rollout': 4.0}
    """
    out: dict[str, float] = {}
    names = dict.fromkeys(chain.from_iterable(metrics for _, metrics in ranks))
    for name in names:
        weights: list[float] = []
        values: list[float] = []
        for weight, metrics in ranks:
            if name in metrics and not math.isnan(float(metrics[name])):
                weights.append(weight)
                values.append(float(metrics[name]))

        if not values:
            out[name] = math.nan
        elif reduction_over_ranks(name) == "sum":
            out[name] = math.fsum(values)
        elif reduction_over_ranks(name) == "max":
            out[name] = max(values)
        else:
            weighted = [weight * value for weight, value in zip(weights, values, strict=True)]
            out[name] = math.fsum(weighted) / math.fsum(weights)
    return out


def gather_metrics(
    strategy: RLStrategy, metrics: Mapping[str, float], weight: float
) -> dict[str, float]:
    """`merge_metrics` over all ranks; this rank's own metrics where there is one.

    Args:
        strategy: through which ranks talk.
        metrics: of this rank.
        weight: of this rank in a mean: its number of prompts.
    """
    if strategy.world_size == 1:
        return dict(metrics)

    nothing: tuple[float, dict[str, float]] = (0.0, {})
    ranks = [nothing] * strategy.world_size
    torch.distributed.all_gather_object(ranks, (weight, dict(metrics)))
    return merge_metrics(ranks)
