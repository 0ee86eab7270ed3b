"""Plans as tables for people, and as plain data for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_audiorl.commands.plan.placement import Piece, Plan
from lightning_audiorl.commands.plan.working import Working

GIB = 2**30


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as Markdown, columns aligned; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "| " + " | ".join("-" * w for w in widths) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.2f}"


def where(plan: Plan) -> str:
    """ "single", "ddp x 8", "fsdp x 8"."""
    return plan.sharding if plan.num_ranks == 1 else f"{plan.sharding} x {plan.num_ranks}"


def parts_table(placed: Sequence[Piece]) -> str:
    """GiB of each part, and the phases that need it."""
    rows = [["part", "GiB", "needed in"]]
    rows += [
        [piece.name, _gib(piece.num_bytes), ", ".join(sorted(piece.phases))] for piece in placed
    ]
    return _table(rows)


def plans_table(plans: Sequence[Plan], bus_gb_per_s: float, limit_bytes: float | None) -> str:
    """Peak GiB of each phase under each plan, whether it fits, and the seconds per step that moving costs."""
    phases = list(plans[0].peak_bytes)
    rows = [
        [
            "devices",
            "placement",
            *phases,
            "peak",
            *(["fits"] if limit_bytes else []),
            "moved",
            "seconds",
        ]
    ]
    for plan in plans:
        fits = [] if limit_bytes is None else ["yes" if plan.max_bytes <= limit_bytes else "no"]
        moved = _gib(plan.fetched_bytes + plan.parked_bytes)
        peaks = [_gib(plan.peak_bytes[phase]) for phase in phases]
        seconds = f"{plan.moving_s(bus_gb_per_s):.2f}"
        rows.append([where(plan), plan.policy, *peaks, _gib(plan.max_bytes), *fits, moved, seconds])
    return _table(rows)


def summary_table(named: Sequence[tuple[str, Sequence[Plan]]], bus_gb_per_s: float) -> str:
    """One row per run, on one device: resident against offload."""
    rows = [
        [
            "run",
            "resident, GiB",
            "offload, GiB",
            "peak of offload in",
            "moved per step, GiB",
            "seconds per step",
        ]
    ]
    for name, plans in named:
        by_policy = {plan.policy: plan for plan in plans if plan.num_ranks == 1}
        if not {"resident", "offload"} <= set(by_policy):
            continue
        resident, offload = by_policy["resident"], by_policy["offload"]
        peaks = offload.peak_bytes
        rows.append(
            [
                name,
                _gib(resident.max_bytes),
                _gib(offload.max_bytes),
                max(peaks, key=lambda phase: peaks[phase]),
                _gib(offload.fetched_bytes + offload.parked_bytes),
                f"{offload.moving_s(bus_gb_per_s):.2f}",
            ]
        )
    return _table(rows)


def as_data(
    plans: Sequence[Plan], placed: Sequence[Piece], working: Working, bus_gb_per_s: float
) -> dict[str, Any]:
    """Everything that the tables show, in bytes and seconds."""
    return {
        "parts": {piece.name: piece.num_bytes for piece in placed},
        "working_bytes": dict(working.phases),
        "plans": [
            {
                "sharding": plan.sharding,
                "num_devices": plan.num_ranks,
                "placement": plan.policy,
                "resident_bytes": plan.resident_bytes,
                "peak_bytes": plan.peak_bytes,
                "max_bytes": plan.max_bytes,
                "fetched_bytes": plan.fetched_bytes,
                "parked_bytes": plan.parked_bytes,
                "moving_s": plan.moving_s(bus_gb_per_s),
            }
            for plan in plans
        ],
    }
