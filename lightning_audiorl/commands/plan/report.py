"""Plans as tables for people, and as plain data for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_audiorl.commands.plan.placement import Piece, Plan
from lightning_audiorl.commands.plan.working import Working

GIB = 2**30


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as Markdown, columns aligned; the first row is the head."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]

    head, *others = [_line(row, widths) for row in rows]
    rule = _line(["-" * width for width in widths], widths)
    return "\n".join([head, rule, *others])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    return "| " + " | ".join(aligned) + " |"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.2f}"


def where(plan: Plan) -> str:
    """How many devices, and what they share.

    Example:
        >>> none = {"resident_bytes": {}, "working_bytes": {}, "fetched_bytes": 0, "parked_bytes": 0}
        >>> where(Plan("single", 1, "offload", **none)), where(Plan("fsdp", 8, "offload", **none))
        ('single', 'fsdp x 8')
    """
    if plan.num_ranks == 1:
        return plan.sharding
    return f"{plan.sharding} x {plan.num_ranks}"


def parts_table(placed: Sequence[Piece]) -> str:
    """GiB of each part, and the phases that need it."""
    rows = [["part", "GiB", "needed in"]]
    for piece in placed:
        rows.append([piece.name, _gib(piece.num_bytes), ", ".join(sorted(piece.phases))])
    return _table(rows)


def cache_line(working: Working, audio_s: float) -> str | None:
    """What the encoder cache takes beside the device, and how many clips it holds; None where there is none."""
    cache = working.policy.encoder_cache
    if cache is None or not working.cached_clip_bytes:
        return None

    size = working.cached_clip_bytes
    places = []
    if cache.memory_bytes:
        num_clips = cache.memory_bytes // size
        places.append(
            f"{_gib(cache.memory_bytes)} GiB of host memory per process ({num_clips} clips)"
        )
    if cache.disk_bytes:
        num_clips = cache.disk_bytes // size
        places.append(f"{_gib(cache.disk_bytes)} GiB in {cache.folder} ({num_clips} clips)")
    clip = f"{size / 2**20:.2f} MiB for a clip of {audio_s:g} s"
    return f"Encoder cache, {clip}: up to {' and '.join(places)}"


def engine_line(working: Working) -> str | None:
    """What another engine takes, and where; None where our own sampler runs."""
    engine = working.engine
    if engine is None:
        return None
    weights = _gib(engine.weights)
    return (
        f"Engine {engine.where}: {weights} GiB of weights, {_gib(engine.cache)} GiB of keys and values; each push "
        f"takes {weights} GiB of host memory, twice in passing"
    )


def plans_table(plans: Sequence[Plan], bus_gb_per_s: float, limit_bytes: float | None) -> str:
    """Peak GiB of each phase under each plan, whether it fits, and the seconds per step that moving costs."""
    phases = list(plans[0].peak_bytes)
    rows = [["devices", "placement", *phases, "peak", "moved", "seconds"]]
    for plan in plans:
        peaks = [_gib(plan.peak_bytes[phase]) for phase in phases]
        moved = _gib(plan.fetched_bytes + plan.parked_bytes)
        seconds = f"{plan.moving_s(bus_gb_per_s):.2f}"
        rows.append([where(plan), plan.policy, *peaks, _gib(plan.max_bytes), moved, seconds])

    # Behind the peak, where there is something to fit into.
    if limit_bytes is not None:
        fits = ["yes" if plan.max_bytes <= limit_bytes else "no" for plan in plans]
        for row, cell in zip(rows, ["fits", *fits], strict=True):
            row.insert(-2, cell)
    return _table(rows)


def summary_table(named: Sequence[tuple[str, Sequence[Plan]]], bus_gb_per_s: float) -> str:
    """One row per run, on one device: resident against offload."""
    head = [
        "run",
        "resident, GiB",
        "offload, GiB",
        "peak of offload in",
        "moved per step, GiB",
        "seconds per step",
    ]
    rows = [head]

    for name, plans in named:
        by_policy = {plan.policy: plan for plan in plans if plan.num_ranks == 1}
        if not {"resident", "offload"} <= set(by_policy):
            continue
        rows.append(_summary(name, by_policy["resident"], by_policy["offload"], bus_gb_per_s))
    return _table(rows)


def _summary(name: str, resident: Plan, offload: Plan, bus_gb_per_s: float) -> list[str]:
    peaks = offload.peak_bytes
    greediest = max(peaks, key=lambda phase: peaks[phase])
    return [
        name,
        _gib(resident.max_bytes),
        _gib(offload.max_bytes),
        greediest,
        _gib(offload.fetched_bytes + offload.parked_bytes),
        f"{offload.moving_s(bus_gb_per_s):.2f}",
    ]


def as_data(
    plans: Sequence[Plan], placed: Sequence[Piece], working: Working, bus_gb_per_s: float
) -> dict[str, Any]:
    """Everything that the tables show, in bytes and seconds."""
    data = {
        "parts": {piece.name: piece.num_bytes for piece in placed},
        "working_bytes": dict(working.phases),
        "plans": [_plan_data(plan, bus_gb_per_s) for plan in plans],
    }
    cache = working.policy.encoder_cache
    if cache is not None:
        data["encoder_cache"] = {
            "clip_bytes": working.cached_clip_bytes,
            "memory_bytes": cache.memory_bytes,
            "disk_bytes": cache.disk_bytes,
        }

    engine = working.engine
    if engine is not None:
        data["engine"] = {
            "weight_bytes": engine.weights,
            "cache_bytes": engine.cache,
            "shares_device": engine.shares_device,
        }
    return data


def _plan_data(plan: Plan, bus_gb_per_s: float) -> dict[str, Any]:
    return {
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
