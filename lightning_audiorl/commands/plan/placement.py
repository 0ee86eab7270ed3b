"""Peak memory of each phase and what moving costs, for each placement policy and each way of sharding."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import nn

from lightning_audiorl.commands.plan.skeleton import unique_bytes
from lightning_audiorl.commands.plan.working import Working
from lightning_audiorl.strategies.fsdp import shard_units, weight_users
from lightning_audiorl.strategies.parts import NEEDED, Part, module_parts
from lightning_audiorl.strategies.phases import PHASES, Phase
from lightning_audiorl.strategies.placement import Placement, PlacementPolicy

Sharding = Literal["single", "ddp", "fsdp"]

# One byte of a stand-in tensor stands for so many bytes of a part: parts of hundreds of GiB are played on a few MiB.
_UNIT = 2**16


@dataclass(frozen=True)
class Piece:
    """A part of a step as the plan sees it.

    Args:
        name, phases, frozen, always: as `strategies.Part`.
        num_bytes: that one device holds of it.
        gathered_bytes: what it takes beside that in a phase that gathers it whole (FSDP2).
    """

    name: str
    phases: frozenset[Phase]
    num_bytes: int
    frozen: bool = False
    always: bool = False
    gathered_bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """One device of a run under one policy and sharding.

    Args:
        sharding, num_ranks, policy: what is planned.
        resident_bytes: by phase: parts on the device.
        working_bytes: by phase: what the phase makes, and what FSDP2 gathers for it.
        fetched_bytes, parked_bytes: per RL step, to the device and from it.
    """

    sharding: Sharding
    num_ranks: int
    policy: PlacementPolicy
    resident_bytes: dict[Phase, int]
    working_bytes: dict[Phase, int]
    fetched_bytes: int
    parked_bytes: int

    @property
    def peak_bytes(self) -> dict[Phase, int]:
        """By phase: parts and working memory."""
        return {
            phase: size + self.working_bytes[phase] for phase, size in self.resident_bytes.items()
        }

    @property
    def max_bytes(self) -> int:
        """Peak of the step."""
        return max(self.peak_bytes.values())

    def moving_s(self, bus_gb_per_s: float) -> float:
        """Seconds per RL step on a bus of so many 1e9 bytes per second, none of it hidden.

        Example:
            >>> Plan("single", 1, "offload", {}, {}, fetched_bytes=3 * 10**9, parked_bytes=10**9).moving_s(25.0)
            0.16
        """
        return (self.fetched_bytes + self.parked_bytes) / (bus_gb_per_s * 1e9)


def pieces(
    working: Working,
    sharding: Sharding = "single",
    num_ranks: int = 1,
    keep_context: bool = False,
    stay: bool = False,
) -> list[Piece]:
    """What there is to place, and how many bytes of it one device holds.

    Args:
        working: of the run.
        sharding, num_ranks, keep_context: as in `plan`.
        stay: sharded modules never leave the device.
    """
    num = num_ranks if sharding == "fsdp" else 1
    sharded = _parameter_ids(_units(working)) if num > 1 else set()

    out: list[Piece] = []
    trained_bytes = 0
    for name, modules in working.policy.parts().items():
        for part in module_parts(name, modules):
            whole = unique_bytes([t for t in part.tensors() if id(t) not in sharded])
            split = unique_bytes([t for t in part.tensors() if id(t) in sharded])
            share = -(-split // num)
            if not part.frozen:
                trained_bytes += whole + share

            out.append(Piece(part.name, part.phases, whole, part.frozen))
            # `PhaseFSDP` moves the shards of a part together, and has all of them there in the update.
            shards = Piece(
                f"{part.name}, shards",
                NEEDED[name] | {"update"},
                share,
                always=stay,
                gathered_bytes=split - share,
            )
            out.append(shards)

    if working.needs_reference:
        out.append(Piece("reference", NEEDED["reference"], trained_bytes, frozen=True))

    # A rank has the optimizer's state of what it holds. Only plain tensors are parked: the shards of that state stay.
    kept = trained_bytes / max(1, unique_bytes(list(working.policy.trainable().values())))
    out.append(
        Piece("optimizer", NEEDED["optimizer"], int(working.optimizer_bytes * kept), always=num > 1)
    )
    out.append(Piece("context", NEEDED["context"], working.context_bytes, always=keep_context))
    engine = working.engine
    if engine is not None and engine.shares_device:
        held = engine.weights + engine.cache
        out.append(Piece("engine", frozenset(PHASES), held, frozen=True, always=True))
    copies = working.kept_copies_bytes if num == 1 else 0
    out.append(Piece("weight copies", frozenset(PHASES), copies, frozen=True, always=True))
    return [piece for piece in out if piece.num_bytes]


def _units(working: Working) -> list[nn.Module]:
    """What `PhaseFSDP` shards, each by itself."""
    parts = working.policy.parts().values()
    users = weight_users(list(chain.from_iterable(parts)))
    units: list[nn.Module] = []
    for modules in parts:
        units += shard_units(modules, users)
    return units


def _parameter_ids(modules: list[nn.Module]) -> set[int]:
    found: set[int] = set()
    for module in modules:
        found.update(id(parameter) for parameter in module.parameters())
    return found


def plan(
    working: Working,
    policy: PlacementPolicy,
    sharding: Sharding = "single",
    num_ranks: int = 1,
    budget_bytes: int | None = None,
    keep_context: bool = False,
) -> Plan:
    """Peaks and moves of one device.

    Args:
        working: traced for ``num_ranks``.
        policy: of the placement.
        sharding: "single" and "ddp" hold everything whole, "fsdp" 1/num_ranks of what can be sharded.
        num_ranks: devices.
        budget_bytes: for "auto": bytes that parts may take, working memory not counted.
        keep_context: as in `AudioRLModule`.
    """
    placed = pieces(working, sharding, num_ranks, keep_context, stay=policy != "offload")
    phases = [phase for phase in PHASES if phase in working.phases]
    names = residency(placed, policy, phases, budget_bytes)

    # The encoded prompts are made in the encode phase: they count there as its working memory.
    sizes = {piece.name: piece.num_bytes for piece in placed}
    resident: dict[Phase, int] = {}
    for phase in phases:
        held = names[phase]
        if phase == "encode":
            held = held - {"context"}
        resident[phase] = sum(sizes[name] for name in held)

    made = {phase: working.phases[phase] for phase in phases}
    if sharding == "fsdp" and num_ranks > 1:
        made |= _gathering(working, placed, phases, num_ranks)
    fetched, parked = _moves(placed, names, phases)
    return Plan(sharding, num_ranks, policy, resident, made, fetched, parked)


def residency(
    placed: list[Piece],
    policy: PlacementPolicy,
    phases: list[Phase],
    budget_bytes: int | None = None,
) -> dict[Phase, set[str]]:
    """By phase, the names of what is on the device: the strategies' own `Placement`, played on stand-in tensors.

    Args:
        placed: what there is.
        policy: of the placement.
        phases: that the run has, in their order.
        budget_bytes: for "auto".

    Example:
        >>> lm = Piece("lm", frozenset({"rollout", "update"}), 2**20)
        >>> residency([lm], "offload", ["encode", "rollout"])
        {'encode': set(), 'rollout': {'lm'}}
    """
    units = None if budget_bytes is None else max(1, budget_bytes // _UNIT)
    placement = Placement(policy, torch.device("cpu"), units)
    stand_ins = {
        piece.name: torch.zeros(-(-piece.num_bytes // _UNIT), dtype=torch.uint8) for piece in placed
    }

    def part(piece: Piece) -> Part:
        return Part(
            piece.name, piece.phases, lambda: [stand_ins[piece.name]], piece.frozen, piece.always
        )

    placement.add([part(piece) for piece in placed])

    # Under "auto" the first steps differ: what follows what is not known yet.
    names: dict[Phase, set[str]] = {}
    for _ in range(3):
        for phase in phases:
            placement.enter(phase)
            names[phase] = {piece.name for piece in placed if not placement.is_parked(piece.name)}
    return names


def _gathering(
    working: Working, placed: list[Piece], phases: list[Phase], num_ranks: int
) -> dict[Phase, int]:
    """Working bytes under FSDP2: whole parts in phases without gradients, a layer and the next one in the update."""
    units = _units(working)
    layer = 0
    trained = 0
    for unit in units:
        layer = max(layer, unique_bytes(list(unit.parameters())))
        trained = max(trained, unique_bytes([p for p in unit.parameters() if p.requires_grad]))

    # A layer more: what is gathered lies in one buffer before it is copied out.
    out: dict[Phase, int] = {}
    for phase in phases:
        gathered = sum(piece.gathered_bytes for piece in placed if phase in piece.phases)
        out[phase] = working.phases[phase] + gathered + (layer if gathered else 0)

    # The policy's own shards are put aside while the reference's values stand in their place.
    if "reference" in out:
        out["reference"] += sum(piece.num_bytes for piece in placed if piece.name == "reference")

    # The gradients of what is not sharded are not split.
    own = _parameter_ids(units)
    whole = unique_bytes([p for p in working.policy.trainable().values() if id(p) not in own])
    kept = int(whole * (1 - 1 / num_ranks))
    out["update"] = working.update_sharded + kept + 2 * layer + 2 * trained
    return out


def _moves(
    placed: list[Piece], names: dict[Phase, set[str]], phases: list[Phase]
) -> tuple[int, int]:
    """Bytes per step to the device, and from it: what is frozen has a valid copy in host memory already."""
    fetched = 0
    parked = 0
    befores = [phases[-1], *phases[:-1]]
    for before, phase in zip(befores, phases, strict=True):
        for piece in placed:
            was_there = piece.name in names[before]
            is_there = piece.name in names[phase]

            # The encoded prompts are made in the encode phase, and gone after the step.
            if piece.name == "context":
                if phase == "encode":
                    continue
                was_there = was_there or before == "encode"

            if is_there and not was_there:
                fetched += piece.num_bytes
            if was_there and not is_there and not piece.frozen:
                parked += piece.num_bytes
    return fetched, parked
