"""What stood on the device in which phase, and what moving it cost; read from storages and from the allocator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import torch

from lightning_audiorl.strategies.phases import Phase
from lightning_audiorl.strategies.placement import Placement

_MIB = 2**20

# Of this process on Linux: writing "5" to the first resets the peak resident set size, which the second holds.
_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Most memory in use since `reset`: the allocator's on CUDA, the resident set of the process on Linux."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reset(self) -> None:
        """Begin anew."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            _CLEAR.write_text("5")
        except OSError:
            return

    def read(self) -> int | None:
        """Bytes; None where the system does not say."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        try:
            lines = _STATUS.read_text().splitlines()
        except OSError:
            return None

        # "VmHWM:     123456 kB"
        peaks = (int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
        return next(peaks, None)


class Ledger:
    """Bytes on the device during one RL step.

    Args:
        placement: of the parts.
        device: where phases compute.

    Attributes:
        resident_bytes: by phase and part, when the phase began; the largest of the step.
        peak_bytes: by phase: most memory in use; on a CPU that of the whole process.
        host_bytes: in host memory and never on the device, by what it is; set by who holds it.

    Example:
        >>> from lightning_audiorl.strategies import Part
        >>> weight = torch.zeros(2**18)
        >>> placement = Placement("resident", torch.device("cpu"))
        >>> placement.add([Part("lm", frozenset({"rollout"}), lambda: [weight])])
        >>> ledger = Ledger(placement, torch.device("cpu"))
        >>> with ledger.phase("rollout"):
        ...     pass
        >>> ledger.metrics()["resident_mib/rollout"]
        1.0
    """

    def __init__(self, placement: Placement, device: torch.device) -> None:
        self.placement = placement
        self._peak = PeakMemory(device)
        self.resident_bytes: dict[Phase, dict[str, int]] = {}
        self.peak_bytes: dict[Phase, int] = {}
        self.host_bytes: dict[str, int] = {}

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Take down ``name``, which has just been entered."""
        held = self.resident_bytes.setdefault(name, {})
        for part, size in self.placement.resident_bytes().items():
            held[part] = max(size, held.get(part, 0))

        # A phase may be entered several times in a step; each time has a peak of its own.
        self._peak.reset()
        try:
            yield
        finally:
            peak = self._peak.read()
            if peak is not None:
                self.peak_bytes[name] = max(peak, self.peak_bytes.get(name, 0))

    def add_copies(self, kept: int, in_rollout: int) -> None:
        """Take down copies of weights: bytes ``kept`` in every phase that there was, and those of the rollout."""
        for phase, held in self.resident_bytes.items():
            held["weight copies"] = in_rollout if phase == "rollout" else kept

    def metrics(self) -> dict[str, float]:
        """By log key: MiB resident and peak per phase, MiB moved, seconds spent moving, and of them hidden."""
        placement = self.placement
        out: dict[str, float] = {}
        for phase, held in self.resident_bytes.items():
            out[f"resident_mib/{phase}"] = sum(held.values()) / _MIB
        for phase, peak in self.peak_bytes.items():
            out[f"peak_mib/{phase}"] = peak / _MIB

        for name, size in self.host_bytes.items():
            out[f"host_mib/{name.replace(' ', '_')}"] = size / _MIB

        out["moving/mib"] = placement.moved_bytes / _MIB
        out["moving/seconds"] = placement.moved_s
        out["moving/hidden_seconds"] = max(0.0, placement.moved_s - placement.waited_s)
        return out

    def table(self) -> str:
        """MiB of each part in each phase, as Markdown; the last row is the peak, but for what stays in host memory."""
        phases = list(self.resident_bytes)
        rows = [["MiB resident", *phases], ["---"] * (len(phases) + 1)]

        for part in dict.fromkeys(chain.from_iterable(self.resident_bytes.values())):
            sizes = [self.resident_bytes[phase].get(part, 0) / _MIB for phase in phases]
            rows.append([part, *(f"{size:.1f}" if size else "." for size in sizes)])

        totals = [sum(self.resident_bytes[phase].values()) / _MIB for phase in phases]
        rows.append(["all parts", *(f"{total:.1f}" for total in totals)])

        peaks = [self.peak_bytes.get(phase) for phase in phases]
        cells = ["-" if peak is None else f"{peak / _MIB:.1f}" for peak in peaks]
        rows.append(["peak in use", *cells])
        for name, size in self.host_bytes.items():
            rows.append([f"{name}, on the host", *([f"{size / _MIB:.1f}"] * len(phases))])
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)

    def reset(self) -> None:
        """Begin the next step."""
        self.resident_bytes = {}
        self.peak_bytes = {}
        self.host_bytes = {}
        self.placement.reset()
