"""What stood on the device in which phase, and what moving it cost; read from storages and from the allocator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lightning_audiorl.strategies.phases import Phase
from lightning_audiorl.strategies.placement import Placement

_MIB = 2**20
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


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
            _CLEAR.write_text("5")  # Linux: reset the peak resident set size
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
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


class Ledger:
    """Figures of one RL step.

    Attributes:
        resident_bytes: by phase and part, when the phase began; the largest of the step.
        peak_bytes: by phase: most memory in use; on a CPU that of the whole process.
    """

    def __init__(self, placement: Placement, device: torch.device) -> None:
        self.placement = placement
        self._peak = PeakMemory(device)
        self.resident_bytes: dict[Phase, dict[str, int]] = {}
        self.peak_bytes: dict[Phase, int] = {}

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Take down ``name``, which has just been entered."""
        held = self.resident_bytes.setdefault(name, {})
        for part, size in self.placement.resident_bytes().items():
            held[part] = max(size, held.get(part, 0))
        self._peak.reset()
        try:
            yield
        finally:
            peak = self._peak.read()
            if peak is not None:
                self.peak_bytes[name] = max(peak, self.peak_bytes.get(name, 0))

    def figures(self) -> dict[str, float]:
        """By log key: MiB resident and peak per phase, MiB moved, seconds spent moving, and of them hidden."""
        placement = self.placement
        out = {f"resident_mib/{phase}": sum(held.values()) / _MIB for phase, held in self.resident_bytes.items()}
        out |= {f"peak_mib/{phase}": peak / _MIB for phase, peak in self.peak_bytes.items()}
        return out | {
            "moving/mib": placement.moved_bytes / _MIB,
            "moving/seconds": placement.moved_s,
            "moving/hidden_seconds": max(0.0, placement.moved_s - placement.waited_s),
        }

    def table(self) -> str:
        """MiB of each part in each phase, as Markdown; the last row is the peak."""
        phases = list(self.resident_bytes)
        parts = list(dict.fromkeys(part for held in self.resident_bytes.values() for part in held))
        rows = [["MiB resident", *phases], ["---"] * (len(phases) + 1)]
        for part in parts:
            sizes = [self.resident_bytes[phase].get(part, 0) / _MIB for phase in phases]
            rows.append([part, *(f"{size:.1f}" if size else "." for size in sizes)])
        rows.append(["all parts", *(f"{sum(self.resident_bytes[phase].values()) / _MIB:.1f}" for phase in phases)])
        peaks = [self.peak_bytes.get(phase) for phase in phases]
        rows.append(["peak in use", *("-" if peak is None else f"{peak / _MIB:.1f}" for peak in peaks)])
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)

    def reset(self) -> None:
        """Begin the next step."""
        self.resident_bytes, self.peak_bytes = {}, {}
        self.placement.reset()
