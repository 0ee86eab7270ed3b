"""How much memory a run would take, told without weights and without a GPU."""

from __future__ import annotations

from lightning_audiorl.commands.plan.placement import Piece, Plan, Sharding, pieces, plan, residency
from lightning_audiorl.commands.plan.settings import Settings, read_settings
from lightning_audiorl.commands.plan.working import Working, trace

__all__ = [
    "Piece",
    "Plan",
    "Settings",
    "Sharding",
    "Working",
    "pieces",
    "plan",
    "read_settings",
    "residency",
    "trace",
]
