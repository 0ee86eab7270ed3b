"""Which parts are on the device in which phase, and how they get there and away. Never what is computed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lightning_audiorl.strategies.parts import Part
from lightning_audiorl.strategies.phases import PHASES, Phase

PlacementPolicy = Literal["resident", "offload", "auto"]


def storage_bytes(tensors: list[Tensor], device: torch.device) -> int:
    """Bytes of the distinct storages on ``device`` behind ``tensors``.

    Example:
        >>> whole = torch.zeros(10)
        >>> storage_bytes([whole, whole[:5]], torch.device("cpu"))
        40
    """
    storages = {}
    for tensor in tensors:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        storage = local.untyped_storage()
        if storage.device.type == device.type:
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


class _Held:
    """One part and its values in host memory while it is parked.

    Attributes:
        host: by id, each tensor and its value in host memory.
        parked: whether the values are in host memory alone.
        ready: recorded behind a fetch on a side stream that nobody has waited for.
    """

    def __init__(self, part: Part, device: torch.device) -> None:
        self.part = part
        self.device = device
        self.host: dict[int, tuple[Tensor, Tensor]] = {}
        self.parked = False
        self.ready: torch.cuda.Event | None = None

    def tensors(self) -> list[Tensor]:
        """The tensors that move by their ``data``; sharded ones the FSDP strategy moves by their modules."""
        return [tensor for tensor in self.part.tensors() if not isinstance(tensor, DTensor)]

    def park(self) -> None:
        """Values to host memory; the tensors are left without storage, so that any touch of them fails."""
        self.wait()
        tensors = {id(tensor): tensor for tensor in self.tensors()}

        # An id may have gone over to another tensor since: an optimizer makes new states, a step new prompts.
        for key, (known, _) in list(self.host.items()):
            if tensors.get(key) is not known:
                del self.host[key]
        for key, tensor in tensors.items():
            if tensor.numel() == 0:
                continue
            # What is frozen has not changed since it was copied.
            if key not in self.host or not self.part.frozen:
                self.host[key] = (tensor, self._to_host(tensor.data, self.host.get(key)))
            tensor.data = torch.empty(0, dtype=tensor.dtype, device=self.device)
        self.parked = True

    def _to_host(self, value: Tensor, held: tuple[Tensor, Tensor] | None) -> Tensor:
        """On a CPU the value itself; else a copy in pinned memory, the one that was used before where there is one."""
        if self.device.type != "cuda":
            return value if value.device.type == "cpu" else value.cpu()
        if value.device.type == "cpu":
            return value.pin_memory()
        if held is not None:
            return held[1].copy_(value)
        return torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value)

    def fetch(self, stream: torch.cuda.Stream | None = None) -> None:
        """Values back to the device, on ``stream`` where one is given; `wait` before they are used."""
        if not self.parked:
            return
        if stream is None:
            self._bring()
        else:
            # What is computed now may still read the memory that the values come to.
            stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(stream):
                self._bring()
                self.ready = torch.cuda.Event()
                self.ready.record(stream)
        self.parked = False

    def _bring(self) -> None:
        for tensor, value in self.host.values():
            tensor.data = value.to(self.device, non_blocking=True)
        if self.device.type == "cpu":
            self.host = {}

    def wait(self) -> None:
        """Make the present stream wait for a fetch under way."""
        if self.ready is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(self.ready)
            # The allocator shall not give the memory away while the present stream uses it.
            for tensor in self.tensors():
                tensor.data.record_stream(current)
            self.ready = None

    @property
    def num_bytes(self) -> int:
        """Bytes on the device when it is there."""
        if self.parked:
            return sum(value.untyped_storage().nbytes() for _, value in self.host.values())
        return storage_bytes(list(self.part.tensors()), self.device)


class Placement:
    """Moves parts at phase boundaries.

    - ``resident``: everything is on the device, always.
    - ``offload``: exactly what the phase needs is on the device; least memory.
    - ``auto``: as ``offload``, but parts stay while the budget holds them, those needed soonest first, and what the
      next phase needs is fetched on a side stream while the present one computes.

    On a CPU, "parked" tensors keep no storage and their values wait aside: nothing is copied and nothing is saved, but
    a wrong table fails at once.

    Args:
        policy: see above.
        device: where phases compute.
        budget_bytes: for ``auto``: bytes of parts on the device, working memory of the phase not counted.

    Attributes:
        moved_bytes, moved_s, waited_s: since `reset`: bytes copied, seconds that copying took, and seconds of it that
            the computation had to wait for.

    Example:
        >>> weight = torch.ones(3)
        >>> placement = Placement("offload", torch.device("cpu"))
        >>> placement.add([Part("lm", frozenset({"rollout"}), lambda: [weight])])
        >>> placement.enter("encode")
        >>> placement.is_parked("lm"), weight.numel()
        (True, 0)
        >>> placement.enter("rollout")
        >>> placement.is_parked("lm"), weight
        (False, tensor([1., 1., 1.]))
    """

    def __init__(
        self, policy: PlacementPolicy, device: torch.device, budget_bytes: int | None = None
    ) -> None:
        if policy not in get_args(PlacementPolicy):
            raise ValueError(
                f"placement: expected one of {', '.join(get_args(PlacementPolicy))}, got {policy!r}"
            )
        if policy == "auto" and (budget_bytes is None or budget_bytes <= 0):
            raise ValueError(
                "placement 'auto' wants a budget: set budget_gb to the memory that parts may take"
            )
        self.policy: PlacementPolicy = policy
        self.device = device
        self.budget_bytes = budget_bytes
        self._held: list[_Held] = []

        # Which phase followed which, so that prefetching knows what comes next.
        self._after: dict[Phase, Phase] = {}
        self._last: Phase | None = None

        # Where prefetches run, and the two events around each of them, for its time.
        self._stream = (
            torch.cuda.Stream(device) if device.type == "cuda" and policy == "auto" else None
        )
        self._pending: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self.reset()

    @property
    def parts(self) -> list[Part]:
        """The parts that are placed."""
        return [held.part for held in self._held]

    def add(self, parts: list[Part]) -> None:
        """Place ``parts``: on the device under ``resident``, else in host memory until a phase needs them."""
        known = {part.name for part in self.parts}
        repeated = [part.name for part in parts if part.name in known]
        if repeated:
            raise ValueError(f"placement: part {repeated[0]!r} is there already")

        for part in parts:
            held = _Held(part, self.device)
            self._held.append(held)
            if self.policy == "resident" or part.always:
                for tensor in held.tensors():
                    tensor.data = tensor.data.to(self.device)
            else:
                held.park()

    def is_parked(self, name: str) -> bool:
        """Whether the part ``name`` is in host memory."""
        return next(held.parked for held in self._held if held.part.name == name)

    def resident_bytes(self) -> dict[str, int]:
        """Bytes on the device by part, read from the storages."""
        return {
            held.part.name: storage_bytes(list(held.part.tensors()), self.device)
            for held in self._held
        }

    def enter(self, phase: Phase) -> None:
        """Bring what ``phase`` needs; under ``auto`` begin to bring what the phase after it needs."""
        if self._last is not None:
            self._after[self._last] = phase
        self._last = phase
        if self.policy == "resident":
            return

        needed = [held for held in self._held if phase in held.part.phases or held.part.always]
        leaving = self._leaving(phase, needed)

        # First out, then in: both together may not fit.
        with self._timed():
            for held in leaving:
                held.park()
            for held in needed:
                held.fetch()
                held.wait()
        if self.policy == "auto":
            self._prefetch(phase)

    def _leaving(self, phase: Phase, needed: list[_Held]) -> list[_Held]:
        """What is not needed; under ``auto`` what is needed soonest stays as far as the budget goes.

        What is parked already is among it: an optimizer's first step, say, leaves new tensors on the device.
        """
        others = [held for held in self._held if held not in needed]
        if self.policy != "auto":
            return others

        assert self.budget_bytes is not None
        room = self.budget_bytes - sum(held.num_bytes for held in needed)
        leaving = []
        for held in sorted(others, key=lambda held: self._distance(phase, held.part)):
            if held.parked or held.num_bytes > room:
                leaving.append(held)
            else:
                room -= held.num_bytes
        return leaving

    def _distance(self, phase: Phase, part: Part) -> int:
        """Phases until ``part`` is needed; phases follow each other as they did last time."""
        for number in range(1, len(PHASES) + 1):
            phase = self._successor(phase)
            if phase in part.phases:
                return number
        return len(PHASES) + 1

    def _successor(self, phase: Phase) -> Phase:
        """The phase after ``phase``, last time; before that the one after it in a full step."""
        return self._after.get(phase, PHASES[(PHASES.index(phase) + 1) % len(PHASES)])

    def _prefetch(self, phase: Phase) -> None:
        """Begin to bring what the phase after ``phase`` needs, as far as the budget goes."""
        assert self.budget_bytes is not None
        following = self._successor(phase)
        used = sum(held.num_bytes for held in self._held if not held.parked)
        for held in self._held:
            is_wanted = held.parked and following in held.part.phases
            if not is_wanted or used + held.num_bytes > self.budget_bytes:
                continue

            used += held.num_bytes
            self.moved_bytes += held.num_bytes
            if self._stream is None:
                held.fetch()
                continue

            start = torch.cuda.Event(enable_timing=True)
            end = torch.cuda.Event(enable_timing=True)
            start.record(self._stream)
            held.fetch(self._stream)
            end.record(self._stream)
            self._pending.append((start, end))

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Count the bytes that move inside, and the seconds that the computation waits for them."""
        before = {id(held): held.parked for held in self._held}
        if self.device.type == "cuda":
            # Not the side stream: what it still fetches is waited for, and counts.
            torch.cuda.current_stream(self.device).synchronize()

        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - start
        self.moved_s += seconds
        self.waited_s += seconds

        # Prefetches took their time too, but while something was computed.
        for first, last in self._pending:
            self.moved_s += first.elapsed_time(last) / 1000
        self._pending = []

        self.moved_bytes += sum(
            held.num_bytes for held in self._held if held.parked != before[id(held)]
        )

    def reset(self) -> None:
        """Forget what was moved."""
        self.moved_bytes = 0
        self.moved_s = 0.0
        self.waited_s = 0.0

    @contextmanager
    def all_values(self) -> Iterator[None]:
        """Every parked tensor shows its value, in host memory, inside; for state dicts and checkpoints."""
        parked = [held for held in self._held if held.parked]
        for held in parked:
            for tensor, value in held.host.values():
                tensor.data = value

        try:
            yield
        finally:
            for held in parked:
                for tensor, _ in held.host.values():
                    # What was loaded inside is the value from now on.
                    held.host[id(tensor)] = (tensor, tensor.data)
                    tensor.data = torch.empty(0, dtype=tensor.dtype, device=self.device)

    def release(self) -> None:
        """End of the run: every tensor has its value again, where it is, and nothing is placed any more."""
        for held in self._held:
            held.wait()
            for tensor, value in held.host.values():
                if tensor.numel() == 0:
                    tensor.data = value
        self._held = []
