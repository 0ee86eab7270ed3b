"""``audiorl plan``: from a config, or a folder of them, to tables."""

from __future__ import annotations

import json as json_format
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_audiorl.commands.plan import report
from lightning_audiorl.commands.plan.placement import Piece, Plan, Sharding, pieces
from lightning_audiorl.commands.plan.placement import plan as plan_one
from lightning_audiorl.commands.plan.settings import Settings, read_settings
from lightning_audiorl.commands.plan.working import Working, trace


def plan(
    config: str,
    device_memory_gb: float | None = None,
    audio_s: float = 20.0,
    batch_size: int | None = None,
    num_devices: int = 1,
    budget_gb: float | None = None,
    bus_gb_per_s: float = 25.0,
    reserve_gb: float = 1.0,
    text_tokens: int | None = None,
    accelerator: str | None = None,
    json: bool = False,
    read: Callable[[Path], Any] | None = None,
) -> None:
    """Print the peak memory of each phase of a run, and what moving parts between phases costs.

    Settings of the run are given as to ``audiorl fit``: ``--model.micro_batch_size 1``, or a second ``--config``. Reads
    the model's config.json; needs neither its weights nor a GPU. Every clip is taken to be ``audio_s`` long and
    every completion to reach its length cap: the worst case. GB of memory are GiB (2**30 bytes).

    Args:
        config: YAML file as ``audiorl fit`` takes it, or a folder of them.
        device_memory_gb: of one device; says what fits.
        audio_s: seconds of each clip.
        batch_size: prompts per RL step, over all devices; by default the data module's.
        num_devices: 1 plans one device; more plan that too, and DDP and FSDP2 over so many.
        budget_gb: that parts may take under the placement "auto"; by default what the device's memory leaves beside
            the working memory of the greediest phase.
        bus_gb_per_s: rate between host and device, 1e9 bytes per second.
        reserve_gb: of the device's memory that is not to be had: context, libraries, fragments.
        text_tokens: tokens of a prompt beside its audio frames; by default 20, or 200 where there is no audio.
        accelerator: "cpu" or "gpu"; by default the trainer's.
        json: print one JSON object per config instead of tables.
        read: what a YAML file says, together with settings of the command line; by default the file alone.
    """
    if bus_gb_per_s <= 0:
        raise ValueError(f"plan: bus_gb_per_s must be above 0, got {bus_gb_per_s}")
    limit = None if device_memory_gb is None else (device_memory_gb - reserve_gb) * report.GIB

    named: list[tuple[str, list[Plan]]] = []
    for path in _configs(config):
        settings = read_settings(path, batch_size, accelerator, read)
        alone = trace(settings, 1, audio_s, text_tokens)
        placed = pieces(alone)
        plans = _plans(settings, alone, 1, limit, budget_gb)
        if num_devices != 1:
            shared = trace(settings, num_devices, audio_s, text_tokens)
            plans += _plans(settings, shared, num_devices, limit, budget_gb)
        named.append((path.stem, plans))

        # One at a time: a folder of large models takes a while.
        if json:
            print(
                json_format.dumps(
                    {"config": str(path), **report.as_data(plans, placed, alone, bus_gb_per_s)}
                )
            )
        else:
            beside = [report.cache_line(alone, audio_s), report.engine_line(alone)]
            print(_text(path, settings, placed, plans, audio_s, bus_gb_per_s, limit, beside))

    if len(named) > 1 and not json:
        print(f"One device, resident against offload, {bus_gb_per_s:g} GB/s\n")
        print(report.summary_table(named, bus_gb_per_s))


def _configs(config: str) -> list[Path]:
    path = Path(config).expanduser()
    found = [path]
    if path.is_dir():
        found = sorted(path.glob("*.yaml"))
    if not found:
        raise FileNotFoundError(f"plan: no YAML file in {path}")
    return found


def _plans(
    settings: Settings, working: Working, ranks: int, limit: float | None, budget_gb: float | None
) -> list[Plan]:
    shardings: tuple[Sharding, ...] = ("ddp", "fsdp")
    if ranks == 1:
        shardings = ("single",)
    keep = settings.keep_context
    out: list[Plan] = []
    for sharding in shardings:
        resident = plan_one(working, "resident", sharding, ranks, keep_context=keep)
        out.append(resident)

        budget = _budget(resident, limit, budget_gb)
        if budget is not None:
            out.append(plan_one(working, "auto", sharding, ranks, budget, keep))

        out.append(plan_one(working, "offload", sharding, ranks, keep_context=keep))
    return out


def _budget(resident: Plan, limit: float | None, budget_gb: float | None) -> int | None:
    """Bytes that parts may take under "auto"; None where nobody says."""
    if budget_gb is not None:
        return int(budget_gb * report.GIB)
    if limit is None:
        return None

    # A budget of nothing is refused; of one byte it parks every part that it can.
    return max(1, int(limit - max(resident.working_bytes.values())))


def _text(
    path: Path,
    settings: Settings,
    placed: list[Piece],
    plans: list[Plan],
    audio_s: float,
    bus_gb_per_s: float,
    limit: float | None,
    beside: list[str | None],
) -> str:
    group = f" x {settings.group_size} samples" if settings.needs_rollout else ""
    columns = f"Peak GiB per phase; GiB moved and seconds per step at {bus_gb_per_s:g} GB/s, none of it hidden"
    if limit is not None:
        columns += f"; fits into {limit / report.GIB:g} GiB"

    paragraphs = [
        f"{path}: {settings.batch_size} prompts{group} per step, {audio_s:g} s of audio each",
        "Parts on one device",
        report.parts_table(placed),
        *(line for line in beside if line),
        columns,
        report.plans_table(plans, bus_gb_per_s, limit),
    ]
    return "\n\n".join(paragraphs) + "\n"
