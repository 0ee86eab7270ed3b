"""Mistakes in a loss of one's own, found where they are made and said in a line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_audiorl.engine.rollout import Sampler
from lightning_audiorl.losses import Loss, PolicyGradient, Prepared
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.serving import Engine

#: Where importance weights of another engine's samples are truncated, unless a setting says otherwise.
SAMPLER_CAP = 2.0


def usual_sampler_cap(engine: Engine | None, sampler_cap: float | None) -> float | None:
    """The cap that a setting says; where it says none, that of samples of another engine.

    Example:
        >>> usual_sampler_cap(None, None) is None, usual_sampler_cap(None, 3.0)
        (True, 3.0)
    """
    if sampler_cap is not None or engine is None or engine.is_local:
        return sampler_cap
    return SAMPLER_CAP


def check_losses(
    losses: Sequence[Loss[Any]],
    sampler: Sampler | None = None,
    policy: Policy[Any] | None = None,
) -> None:
    """The losses of a run: at least one, each an instance, each with a name that no other has.

    Args:
        losses: of the run.
        sampler, policy: that their samples are drawn with; see `check_engine`.

    Raises:
        TypeError: for what is no list, or holds something else than losses.
        ValueError: for an empty list, a loss without a name, or a name twice; for an engine that does not fit.

    Example:
        >>> from lightning_audiorl.losses import CrossEntropy
        >>> check_losses([CrossEntropy(), CrossEntropy()])
        Traceback (most recent call last):
            ...
        ValueError: losses: two have the name 'sft', which stands before their metrics; give one a `name` of its own
    """
    if not isinstance(losses, Sequence):
        raise TypeError(f"losses: expected a list, got {type(losses).__name__}")
    if not losses:
        raise ValueError("losses: expected at least one loss, got []")

    names: set[str] = set()
    for loss in losses:
        if not isinstance(loss, Loss):
            is_class = isinstance(loss, type)
            got = f"the class {loss.__name__}" if is_class else type(loss).__name__
            raise TypeError(f"losses: expected instances of Loss, got {got}")

        # Declared in `Loss`, but set only by its subclasses.
        name = getattr(loss, "name", "")
        if not name:
            raise ValueError(f"{type(loss).__name__}: set `name`, it stands before the metrics")
        if name in names:
            raise ValueError(
                f"losses: two have the name {name!r}, which stands before their metrics; "
                "give one a `name` of its own"
            )
        names.add(name)

    if sampler is not None and policy is not None:
        check_engine(sampler, policy, losses)


def check_engine(sampler: Sampler, policy: Policy[Any], losses: Sequence[Loss[Any]]) -> None:
    """See that the engine of a run can sample from its policy, and that losses know that it is another one.

    Raises:
        ValueError: saying why not.
    """
    if sampler.engine is None:
        return
    sampler.engine.check(policy, sampler.decoding)
    if sampler.engine.is_local:
        return
    for loss in losses:
        if isinstance(loss, PolicyGradient) and loss.sampler_cap is None:
            raise ValueError(
                f"{type(loss).__name__}: samples of a {type(sampler.engine).__name__} want importance weights; set "
                f"sampler_cap, {SAMPLER_CAP:g} is usual"
            )


def check_prepared(loss: Loss[Any], prepared: object, shape: torch.Size) -> None:
    """What `Loss.prepare` returned.

    Args:
        loss: whose it is.
        prepared: what it returned.
        shape: [B, G] of the step.

    Raises:
        TypeError: where it is no `Prepared`.
        ValueError: for a mask of another shape or dtype, or a count that nothing can be divided by.
    """
    where = f"{type(loss).__name__}.prepare"
    if not isinstance(prepared, Prepared):
        raise TypeError(f"{where}: expected a Prepared, got {type(prepared).__name__}")

    # A [B] mask would broadcast, and a float one pass for all true, without an error anywhere.
    used = prepared.used
    if used is not None and (used.shape != shape or used.dtype != torch.bool):
        raise ValueError(
            f"{where}: used must be bool of shape {list(shape)}, got {used.dtype} of {list(used.shape)}"
        )

    if prepared.count is None:
        if loss.count_name not in loss.sum_names:
            raise ValueError(
                f"{where}: without a count the gradients are divided by the sum {loss.count_name!r} (count_name), "
                f"which is not in sum_names {tuple(loss.sum_names)}"
            )
    elif not (math.isfinite(prepared.count) and prepared.count >= 0):
        raise ValueError(
            f"{where}: count must be finite and not negative, got {float(prepared.count)}"
        )


def check_computed(loss: Loss[Any], value: object, names: Iterable[str]) -> None:
    """What `Loss.compute` returned for one micro-batch.

    Args:
        loss: whose it is.
        value: the loss.
        names: of the sums.

    Raises:
        TypeError: where the loss is no tensor of one number.
        ValueError: where it has no graph, or a sum is not in ``sum_names``.
    """
    where = f"{type(loss).__name__}.compute"
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{where}: the loss must be a 0-d tensor, got {got}")
    if not value.requires_grad:
        raise ValueError(
            f"{where}: the loss has no graph to go backward through; where nothing is used, "
            "return 0 times something of the policy's"
        )

    # Sums are added up over ranks by name, and a rank may have run no pass that could tell it the names.
    unknown = sorted(set(names) - set(loss.sum_names))
    if unknown:
        raise ValueError(
            f"{where}: sums {unknown} are not in sum_names {tuple(loss.sum_names)}; add them there"
        )
