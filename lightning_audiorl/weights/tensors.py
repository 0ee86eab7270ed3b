"""What is asked of any tensors that were read: those that the model has, in their shapes, finite, and as written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn


class WeightsError(ValueError):
    """What is on the disk is damaged, incomplete, or another model than was asked for."""


def some_of(names: Collection[str]) -> str:
    """The first three names, and how many more there are.

    Example:
        >>> some_of({"b", "a"}), some_of("abcde")
        ('a, b', 'a, b, c and 2 more')
    """
    first = sorted(names)[:3]
    num_more = len(names) - len(first)
    return ", ".join(first) + (f" and {num_more} more" if num_more else "")


def misfit(
    missing: Collection[str],
    unexpected: Collection[str],
    reshaped: Mapping[str, tuple[Sequence[int], Sequence[int]]],
) -> str:
    """How tensors differ from those of a model; "" where they do not.

    Args:
        missing: names that the model has and the tensors do not.
        unexpected: names that the model does not have.
        reshaped: by name the shape that was read, and that of the model.

    Example:
        >>> misfit({"head.weight"}, set(), {})
        '1 tensor is missing (head.weight)'
    """
    found = []
    if missing:
        found.append(f"{_number(missing)} missing ({some_of(missing)})")
    if unexpected:
        found.append(f"{_number(unexpected)} not of this model ({some_of(unexpected)})")
    if reshaped:
        shapes = {
            f"{name} {list(read)} instead of {list(own)}" for name, (read, own) in reshaped.items()
        }
        found.append(f"{_number(reshaped)} of another shape ({some_of(shapes)})")
    return "; ".join(found)


def _number(names: Collection[str]) -> str:
    return "1 tensor is" if len(names) == 1 else f"{len(names)} tensors are"


def require_fit(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """See that ``tensors`` are those of ``module``, all of them, in their shapes, and finite.

    Args:
        module: that is to take them.
        tensors: by their names in its state dict.
        where: the file, for the error.

    Raises:
        WeightsError: naming the tensors that are not.
    """
    own = module.state_dict()
    shared = own.keys() & tensors.keys()
    reshaped = {
        name: (tensors[name].shape, own[name].shape)
        for name in shared
        if tensors[name].shape != own[name].shape
    }
    differing = misfit(own.keys() - shared, tensors.keys() - shared, reshaped)
    if differing:
        raise WeightsError(
            f"{where}: does not fit the sizes of a {type(module).__name__}: {differing}"
        )
    require_finite(tensors, where)


def require_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """See that no tensor holds NaN or infinity.

    Args:
        tensors: by name.
        where: the file or folder, for the error.

    Raises:
        WeightsError: naming those that do.
    """
    bad = not_finite(tensors)
    if bad:
        raise WeightsError(
            f"{where}: NaN or infinite values in {some_of(bad)}; the run that wrote it was lost by then, take an "
            "earlier one"
        )


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors that hold NaN or infinity; the bias of a head forbids tokens by -inf, which may be.

    Example:
        >>> not_finite({"a": torch.zeros(1), "b": torch.tensor([torch.nan])})
        ['b']
        >>> not_finite({"lm_head.bias": torch.tensor([0.0, -torch.inf])})
        []
    """
    bad = []
    for name, tensor in tensors.items():
        if name.endswith("lm_head.bias"):
            tensor = torch.where(tensor == -torch.inf, 0.0, tensor)
        if not is_finite(tensor):
            bad.append(name)
    return bad


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite; whole numbers, and tensors without values, are finite.

    Example:
        >>> is_finite(torch.tensor([1.0, 3e38, 3e38])), is_finite(torch.tensor([1.0, torch.inf]))
        (True, False)
    """
    if not tensor.is_floating_point() or tensor.is_meta:
        return True

    # A sum reads memory once, and is not finite where a value is not. It may also overflow: then each one is looked at.
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    if tensor.itemsize == 1:
        tensor = tensor.to(wide)
    return bool(tensor.sum(dtype=wide).isfinite()) or bool(tensor.isfinite().all())


def tensor_hashes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """A hash of each tensor's values, shape and precision; the same on every device.

    Example:
        >>> tensor_hashes({"a": torch.zeros(2)}) == tensor_hashes({"a": torch.tensor([0.0, -0.0])})
        False
    """
    # hashlib lets go of Python's lock, so that threads hash side by side.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(tensors, pool.map(_hash, tensors.values()), strict=True))


def _hash(tensor: Tensor) -> str:
    digest = hashlib.sha256(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
    # As bytes: numpy has no bfloat16.
    as_bytes = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    digest.update(as_bytes.numpy().data)
    return digest.hexdigest()[:32]
