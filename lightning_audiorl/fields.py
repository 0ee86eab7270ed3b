"""What the fields of a dataclass hold, written once per field: shapes, and how prompts are selected, joined and moved.

A dataclass that derives from `Checked` compares the sizes of its tensors when it is made; one that derives from
`Batched` can also be selected from by prompt, joined with others of its kind, and moved to a device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import chain
from typing import Annotated, Any, Self, TypeVar, get_type_hints

import torch
from torch import Tensor

_Device = torch.device | str
_Lengths = Mapping[str, int]


class _Rule(ABC):
    """How one field is selected from and joined."""

    @abstractmethod
    def select(self, value: Any, index: list[int], longest: _Lengths) -> Any:
        """The entries of the prompts at ``index``; ``longest`` has the lengths that remain, by name."""

    @abstractmethod
    def join(self, values: Sequence[Any]) -> Any:
        """The entries of several batches, one behind the other."""

    def to(self, value: Any, device: _Device, non_blocking: bool) -> Any:
        return value

    def tensors(self, value: Any) -> dict[str, Tensor]:
        """The tensors held, each by what an error calls it behind the field's name."""
        return {}


@cache
def _names(dims: str) -> tuple[str, ...]:
    return tuple(dims.split())


@dataclass(frozen=True)
class Shape(_Rule):
    """The dimensions of a tensor field (or of each tensor in a dict), as an annotation.

    Example:
        >>> @dataclass(frozen=True)
        ... class Scored(Checked):
        ...     log_probs: Annotated[Tensor, Shape("B T")]
        ...     keep: Annotated[Tensor, Shape("B T")]
        >>> Scored(torch.zeros(2, 3), torch.ones(2, 4))
        Traceback (most recent call last):
            ...
        ValueError: Scored.keep: expected shape [2, 3], got [2, 4]

    Args:
        dims: names of the dimensions, separated by spaces. A name has one size within an object; B is the prompts.
        pad: those that differ between batches; `Batched.join` pads them to the longest.
        lengths: field or property of the object, [B] or [B, G]: what each row uses of the first dimension in ``pad``,
            which `Batched.select` cuts to the longest row. Without a name it stays as it is.
        least: what that cut leaves at least.
        fill: what the padding holds.
        on_host: the tensor stays in host memory, whatever device the others go to.
    """

    dims: str
    pad: str = ""
    lengths: str = ""
    least: int = 0
    fill: int = 0
    on_host: bool = False

    def check(self, label: str, tensor: Tensor, sizes: dict[str, int]) -> None:
        """Compare with the ``sizes`` of the dimensions met before, and add those of new ones.

        Raises:
            ValueError: naming ``label``, for another number of dimensions or another size.
        """
        # Every object of a step comes through here: the error's text is made only where there is one.
        names = _names(self.dims)
        known = sizes.copy()
        fits = tensor.ndim == len(names)
        if fits:
            for name, size in zip(names, tensor.shape, strict=True):
                fits = fits and sizes.setdefault(name, size) == size
        if not fits:
            expected = ", ".join(str(known.get(name, name)) for name in names)
            raise ValueError(f"{label}: expected shape [{expected}], got {list(tensor.shape)}")

    def select(self, value: Any, index: list[int], longest: _Lengths) -> Any:
        if isinstance(value, dict):
            return {key: self.select(tensor, index, longest) for key, tensor in value.items()}
        if self.lengths in longest:
            at = _names(self.dims).index(_names(self.pad)[0])
            used = slice(max(self.least, longest[self.lengths]))
            # Cut first: what is cut off is not copied.
            value = value[(slice(None),) * at + (used,)]
        return value[index]

    def join(self, values: Sequence[Any]) -> Any:
        if isinstance(values[0], dict):
            names = set(values[0])
            if any(set(value) != names for value in values):
                held = [sorted(value) for value in values]
                raise ValueError(f"join: expected the same names in all, got {held}")
            joined = {}
            for key in values[0]:
                joined[key] = self.join([value[key] for value in values])
            return joined
        return torch.cat([self._padded(value, values) for value in values])

    def _padded(self, tensor: Tensor, others: Sequence[Tensor]) -> Tensor:
        if not self.pad:
            return tensor
        padded = self.pad.split()
        sides: list[int] = []
        # torch counts the sides to pad from the last dimension on.
        for at, name in reversed(list(enumerate(self.dims.split()))):
            size = tensor.shape[at]
            longest = size
            if name in padded:
                longest = max(other.shape[at] for other in others)
            sides += [0, longest - size]
        return torch.nn.functional.pad(tensor, sides, value=self.fill)

    def to(self, value: Any, device: _Device, non_blocking: bool) -> Any:
        if self.on_host:
            return value
        if isinstance(value, dict):
            return {key: self.to(tensor, device, non_blocking) for key, tensor in value.items()}
        return value.to(device, non_blocking=non_blocking)

    def tensors(self, value: Any) -> dict[str, Tensor]:
        if isinstance(value, dict):
            return {f"[{key}]": tensor for key, tensor in value.items()}
        return {"": value}


class _PerPrompt(_Rule):
    def select(self, value: Any, index: list[int], longest: _Lengths) -> Any:
        return type(value)(value[i] for i in index)

    def join(self, values: Sequence[Any]) -> Any:
        kind = type(values[0])
        return kind(chain.from_iterable(values))


class _Shared(_Rule):
    def select(self, value: Any, index: list[int], longest: _Lengths) -> Any:
        return value

    def join(self, values: Sequence[Any]) -> Any:
        return values[0]


class _Counts(_Shared):
    def join(self, values: Sequence[Any]) -> Any:
        total: dict[str, int] = {}
        for value in values:
            for name, count in value.items():
                total[name] = total.get(name, 0) + count
        return total


class _Nested(_Rule):
    """A field without an annotation: again a `Batched`."""

    def select(self, value: Any, index: list[int], longest: _Lengths) -> Any:
        return value.select(index)

    def join(self, values: Sequence[Any]) -> Any:
        return values[0].join(values[1:])

    def to(self, value: Any, device: _Device, non_blocking: bool) -> Any:
        return value.to(device, non_blocking=non_blocking)

    def tensors(self, value: Any) -> dict[str, Tensor]:
        return {f".{number}": tensor for number, tensor in enumerate(value.tensors())}


_T = TypeVar("_T")
#: A list or tuple with one entry per prompt.
PerPrompt = Annotated[_T, _PerPrompt()]
#: What all prompts have in common; of joined batches, the first one's.
Shared = Annotated[_T, _Shared()]
#: Counts by name: `Batched.select` leaves them as they are, `Batched.join` adds them up.
Counts = Annotated[dict[str, int], _Counts()]


def _rules(value: object) -> dict[str, _Rule]:
    """The rule of each field of a dataclass instance."""
    kind: Any = type(value)
    return _rules_of(kind)


@cache
def _rules_of(kind: Any) -> dict[str, _Rule]:
    """The rules of a dataclass; its annotations are read once."""
    hints = get_type_hints(kind, include_extras=True)
    rules: dict[str, _Rule] = {}
    for each in fields(kind):
        given = [
            extra
            for extra in getattr(hints[each.name], "__metadata__", ())
            if isinstance(extra, _Rule)
        ]
        rules[each.name] = given[0] if given else _Nested()
    return rules


# A step makes hundreds of these objects: what they ask of their class is answered once.
@cache
def _shapes_of(kind: Any) -> tuple[tuple[str, Shape], ...]:
    return tuple((name, rule) for name, rule in _rules_of(kind).items() if isinstance(rule, Shape))


@cache
def _lists_of(kind: Any) -> tuple[str, ...]:
    return tuple(name for name, rule in _rules_of(kind).items() if isinstance(rule, _PerPrompt))


class Checked:
    """A dataclass whose shapes are checked when it is made."""

    def __post_init__(self) -> None:
        """Compare the sizes of all dimensions of one name.

        Raises:
            ValueError: naming the field.
        """
        own: Any = type(self)
        kind = own.__name__
        sizes: dict[str, int] = {}

        # Lists come first: where a tensor does not fit a list, the error is about the tensor.
        for name in _lists_of(own):
            num = len(getattr(self, name))
            if sizes.setdefault("B", num) != num:
                raise ValueError(
                    f"{kind}.{name}: expected {sizes['B']} entries, one per prompt, got {num}"
                )

        for name, shape in _shapes_of(own):
            value = getattr(self, name)
            if value is not None:
                for key, tensor in shape.tensors(value).items():
                    shape.check(f"{kind}.{name}{key}", tensor, sizes)


class Batched(Checked):
    """A dataclass over B prompts, which is selected from, joined and moved by what its annotations say.

    A field is a tensor with a `Shape`, a `PerPrompt`, `Shared` or `Counts`; one without an annotation is again a
    `Batched`.

    Example:
        >>> @dataclass(frozen=True)
        ... class Clips(Batched):
        ...     names: PerPrompt[list[str]]
        ...     waveform: Annotated[Tensor, Shape("B S", pad="S", lengths="num_samples")]
        ...     num_samples: Annotated[Tensor, Shape("B")]
        >>> clips = Clips(["a", "b"], torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([3, 1]))
        >>> clips.select([1])
        Clips(names=['b'], waveform=tensor([[4]]), num_samples=tensor([1]))
        >>> clips.select([1]).join([clips]).waveform
        tensor([[4, 0, 0],
                [1, 2, 3],
                [4, 0, 0]])
    """

    def select(self, index: list[int]) -> Self:
        """The prompts at ``index``, in that order; dimensions with lengths are cut to the longest row that is left."""
        own: Any = type(self)
        longest: dict[str, int] = {}
        for name in {shape.lengths for _, shape in _shapes_of(own) if shape.lengths}:
            lengths: Tensor | None = getattr(self, name)
            if lengths is not None:
                # No prompts have no longest row.
                longest[name] = int(lengths[index].max()) if index else 0
        return self._taken(index, longest)

    def reordered(self, order: list[int]) -> Self:
        """All prompts in another order; nothing is cut."""
        return self._taken(order, {})

    def _taken(self, index: list[int], longest: dict[str, int]) -> Self:
        changed: dict[str, Any] = {}
        for name, rule in _rules(self).items():
            value = getattr(self, name)
            changed[name] = None if value is None else rule.select(value, index, longest)
        return self._with(changed)

    def join(self, others: Sequence[Self]) -> Self:
        """These prompts, and behind them those of the others.

        Raises:
            ValueError: where some of them have what others leave out.
        """
        changed: dict[str, Any] = {}
        for name, rule in _rules(self).items():
            values = [getattr(each, name) for each in (self, *others)]
            num_missing = sum(value is None for value in values)
            if num_missing not in (0, len(values)):
                raise ValueError(f"{type(self).__name__}.join: some have {name}, others have none")
            changed[name] = None if num_missing else rule.join(values)
        return self._with(changed)

    def to(self, device: _Device, non_blocking: bool = False) -> Self:
        """A copy on ``device``; Lightning's batch transfer calls it."""
        changed: dict[str, Any] = {}
        for name, rule in _rules(self).items():
            value = getattr(self, name)
            changed[name] = None if value is None else rule.to(value, device, non_blocking)
        return self._with(changed)

    def tensors(self) -> list[Tensor]:
        """The tensors that `to` moves."""
        out: list[Tensor] = []
        for name, rule in _rules(self).items():
            value = getattr(self, name)
            if value is not None and not getattr(rule, "on_host", False):
                out += rule.tensors(value).values()
        return out

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors held, read from their storages."""
        held: list[Tensor] = []
        for name, rule in _rules(self).items():
            value = getattr(self, name)
            if value is not None:
                held += rule.tensors(value).values()
        return sum(tensor.untyped_storage().nbytes() for tensor in held)

    def _with(self, values: dict[str, Any]) -> Self:
        # Every field has a rule, so these are all of them.
        kind: Any = type(self)  # a dataclass, as every subclass is
        made: Self = kind(**values)
        return made
