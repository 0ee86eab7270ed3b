"""What processes say to each other in a step: counts, gradient norm, figures, and that one of them failed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_audiorl.metrics.specs import reduction_over_ranks
from lightning_audiorl.strategies import rl_strategy


def total(strategy: Any, value: Tensor | float, how: str = "sum") -> float:
    """Sum (or ``max``) of a number over ranks."""
    number = torch.as_tensor(value, dtype=torch.float64).detach().to(strategy.root_device)
    return float(strategy.reduce(number.clone(), reduce_op=how))


def equal_passes(strategy: Any, pieces: list[list[int]]) -> list[tuple[list[int], bool]]:
    """The pieces of a batch, and whether each counts.

    Where ranks compute layer by layer together (FSDP), all take as many passes as the one that has most; the passes
    too many repeat a piece and count nothing.
    """
    num = int(total(strategy, len(pieces), "max")) if rl_strategy(strategy).lockstep else len(pieces)
    return [(piece, True) for piece in pieces] + [(pieces[0], False)] * (num - len(pieces))


@contextmanager
def agreed(strategy: Any, doing: str) -> Iterator[None]:
    """An exception inside, on one rank, is one on all of them, before anyone waits for the others in vain.

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
    num_failed = int(total(strategy, float(error is not None)))
    if error is not None:
        raise error
    if num_failed:
        raise RuntimeError(f"{num_failed} other rank(s) failed in {doing}; see their output for the reason")


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Clip by the norm over all gradients, whole or sharded; returns the norm before clipping.

    Args:
        parameters: those that train.
        max_norm: 0 only measures.
    """
    parameters = list(parameters)
    limit = max_norm or math.inf
    sharded = [p.grad for p in parameters if isinstance(p.grad, DTensor)]
    if not sharded:
        return float(nn.utils.clip_grad_norm_(parameters, limit))
    shards = [grad.to_local() for grad in sharded]
    whole = [p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]
    squares = torch.stack([shard.square().sum() for shard in shards]).sum()
    torch.distributed.all_reduce(squares)
    norm = (squares + sum(grad.square().sum() for grad in whole)).sqrt()
    factor = float((limit / (norm + 1e-6)).clamp(max=1.0))
    for grad in (*shards, *whole):
        grad.mul_(factor)
    return float(norm)


def merge_metrics(ranks: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
    """One set of figures from those of all ranks: counts are added, times and sizes are the largest, the rest means.

    Args:
        ranks: weight (number of prompts) and figures of each rank. A NaN is left out of a mean.
    """
    out: dict[str, float] = {}
    for name in dict.fromkeys(name for _, metrics in ranks for name in metrics):
        known = [(w, float(m[name])) for w, m in ranks if name in m and not math.isnan(float(m[name]))]
        values = [value for _, value in known]
        if not known:
            out[name] = math.nan
        elif reduction_over_ranks(name) == "sum":
            out[name] = math.fsum(values)
        elif reduction_over_ranks(name) == "max":
            out[name] = max(values)
        else:
            out[name] = math.fsum(w * v for w, v in known) / math.fsum(w for w, _ in known)
    return out


def gather_metrics(strategy: Any, metrics: Mapping[str, float], weight: float) -> dict[str, float]:
    """`merge_metrics` over all ranks; the own figures where there is one."""
    if strategy.world_size == 1:
        return dict(metrics)
    ranks: list[Any] = [None] * strategy.world_size
    torch.distributed.all_gather_object(ranks, (weight, dict(metrics)))
    return merge_metrics(ranks)
