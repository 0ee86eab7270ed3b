"""What a run left behind, as one flat table of values by kind and name; and how two such tables differ."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

#: Parts of names of what is measured: seconds and memory differ from run to run.
MEASURED = (
    "seconds",
    "_s/",
    "total_s",
    "evaluation_s",
    "real_time_factor",
    "rtf",
    "hp_metric",
    "moving/",
    "peak_mib/",
)

#: Kind -> what it is of, in the order of the table.
KINDS = {
    "metrics": "every value of every training and evaluation curve, as float32 in TensorBoard",
    "texts": "hypotheses of evaluations and of rollouts, as tables in TensorBoard",
    "weights": "trainable tensors of the last checkpoint",
    "optimizer": "state of optimizer and schedule in the last checkpoint",
    "evaluations": "the record of evaluations in the last checkpoint",
    "checkpoint": "everything else in the last checkpoint",
}

Value = Tensor | float | int | str | bool | None
Table = dict[str, dict[str, Value]]


def is_measured(name: str) -> bool:
    """Whether a value is of seconds or memory.

    Example:
        >>> is_measured("seconds/update"), is_measured("loss@3")
        (True, False)
    """
    return any(part in name for part in MEASURED)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Value]]:
    """Every leaf of a nested structure, with its path.

    Example:
        >>> list(leaves({"a": [1, {"b": 2.0}]}))
        [('a/0', 1), ('a/1/b', 2.0)]
    """
    if isinstance(value, dict):
        pairs: Any = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    else:
        yield (
            path,
            value if isinstance(value, Tensor | float | int | str | bool | None) else repr(value),
        )
        return

    for key, item in pairs:
        yield from leaves(item, f"{path}/{key}" if path else str(key))


def _drawn(events: Sequence[Any]) -> list[Any]:
    """The points of a curve that every build draws.

    Some draw no constants, and of a curve that changes later the first and the last constant point; every number is in
    the history of the report as well, which the checkpoint has.
    """
    num_constant = 0
    for event in events:
        # NaN is the same as NaN.
        if repr(event.value) != repr(events[0].value):
            break
        num_constant += 1
    if num_constant == len(events):
        return []
    ends = {0, max(0, num_constant - 1)}
    return [event for i, event in enumerate(events) if i in ends or i >= num_constant]


def _curves(folder: Path, is_resumed: bool) -> tuple[dict[str, Value], dict[str, Value]]:
    """Scalars and texts of the TensorBoard files in ``folder``, by tag and step."""
    scalars: dict[str, Value] = {}
    texts: dict[str, Value] = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            # One that goes on from the earlier build's checkpoint draws all, and a curve may have one point.
            points = events.Scalars(tag)
            for event in points if is_resumed else _drawn(points):
                scalars[f"{tag}@{event.step}"] = event.value
        for tag in events.Tags()["tensors"]:
            # The layout of charts is no text.
            if events.SummaryMetadata(tag).plugin_data.plugin_name != "text":
                continue
            for event in events.Tensors(tag):
                texts[f"{tag}@{event.step}"] = event.tensor_proto.string_val[0].decode()
    return scalars, texts


def _kind_of(path: str) -> str:
    """Which kind a leaf of a checkpoint belongs to."""
    top = path.split("/", 1)[0]
    if top == "state_dict":
        return "weights"
    if top in ("optimizer_states", "lr_schedulers"):
        return "optimizer"
    return "evaluations" if path.startswith("audiorl/evaluations") else "checkpoint"


def read(folder: Path, is_resumed: bool = False) -> Table:
    """What the run in ``folder`` left: its TensorBoard files and its last checkpoint.

    Args:
        folder: of the run.
        is_resumed: whether it went on from a checkpoint of the earlier build.
    """
    table: Table = {kind: {} for kind in KINDS}
    table["metrics"], table["texts"] = _curves(folder, is_resumed)

    checkpoint = torch.load(
        folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True
    )
    for path, value in leaves(checkpoint):
        table[_kind_of(path)][path] = value

    return {
        kind: {name: value for name, value in values.items() if not is_measured(name)}
        for kind, values in table.items()
    }


def _bits(number: float) -> bytes:
    return struct.pack("<d", number)


def difference(base: Value, present: Value) -> float:
    """0 where two values are the same bit for bit (NaN equals NaN), else by how much they differ.

    Infinity stands for what has no size: another text, type or shape, or NaN against a number.

    Example:
        >>> difference(1.0, 1.5), difference("a", "b"), difference(float("nan"), float("nan"))
        (0.5, inf, 0.0)
    """
    if isinstance(base, Tensor) and isinstance(present, Tensor):
        return _tensor_difference(base, present)
    if type(base) is not type(present):
        return math.inf
    if isinstance(base, float) and isinstance(present, float):
        same = _bits(base) == _bits(present) or (math.isnan(base) and math.isnan(present))
    else:
        same = base == present
    if same:
        return 0.0

    is_number = isinstance(base, int | float) and isinstance(present, int | float)
    size = abs(base - present) if is_number else math.inf  # type: ignore[operator]
    return math.inf if math.isnan(size) or size == 0 else float(size)


def _tensor_difference(base: Tensor, present: Tensor) -> float:
    if base.dtype != present.dtype or base.shape != present.shape:
        return math.inf
    if torch.equal(base, present):
        return 0.0
    size = float((base.double() - present.double()).abs().max())
    return math.inf if math.isnan(size) else size


@dataclass
class Comparison:
    """How two tables differ in one kind of values.

    Args:
        num: values that both have.
        num_differing: of these.
        largest, where: the largest difference and whose it is.
        only_base, only_present: names that only one of them has.
        may_grow: whether names that only the present build has are news and no difference.
        rounding: differences up to this are none.
    """

    num: int = 0
    num_differing: int = 0
    largest: float = 0.0
    where: str = ""
    only_base: list[str] = field(default_factory=list)
    only_present: list[str] = field(default_factory=list)
    may_grow: bool = False
    rounding: float = 0.0

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs; where nothing was compared, nothing is shown to be equal."""
        grown = bool(self.only_present) and not self.may_grow
        differs = self.num_differing > 0 and not self.largest <= self.rounding
        return self.num > 0 and not (differs or self.only_base or grown)


def compare(
    base: dict[str, Value], present: dict[str, Value], may_grow: bool = False
) -> Comparison:
    """One kind of values of two builds.

    Args:
        base, present: values by name.
        may_grow: names that only the present build has, such as those of a metric that is new, are no difference.

    Example:
        >>> result = compare({"loss@1": 1.0, "kl@1": 0.0}, {"loss@1": 1.25})
        >>> (result.num_differing, result.largest, result.where, result.only_base)
        (1, 0.25, 'loss@1', ['kl@1'])
    """
    out = Comparison(
        only_base=[name for name in base if name not in present],
        only_present=[name for name in present if name not in base],
        may_grow=may_grow,
    )
    for name, value in base.items():
        if name not in present:
            continue
        out.num += 1
        size = difference(value, present[name])
        if size == 0:
            continue
        out.num_differing += 1
        if not out.where or size > out.largest:
            out.largest, out.where = size, name
    return out


def after(table: Table, step: int, last: int) -> Table:
    """What a run that goes on from ``step`` has in common with the whole run: later curves, and where it ends.

    The record of loops and callbacks is left out: it also says how often the run was begun.
    """

    def is_later(name: str) -> bool:
        return step < int(name.rsplit("@", 1)[1]) <= last

    def stays(name: str) -> bool:
        return name.split("/", 1)[0] not in ("loops", "callbacks", "epoch", "global_step")

    out = {kind: dict(table[kind]) for kind in ("weights", "optimizer", "evaluations")}
    for kind in ("metrics", "texts"):
        out[kind] = {name: value for name, value in table[kind].items() if is_later(name)}
    out["checkpoint"] = {name: value for name, value in table["checkpoint"].items() if stays(name)}
    return out
