"""Where the parts of a step live in which phase; never what they compute."""

from lightning.pytorch.strategies import StrategyRegistry

from lightning_audiorl.strategies.ddp import PhaseDDP
from lightning_audiorl.strategies.fsdp import PhaseFSDP
from lightning_audiorl.strategies.interface import PlainStrategy, RLStrategy, rl_strategy
from lightning_audiorl.strategies.ledger import Ledger
from lightning_audiorl.strategies.mixin import PhaseMixin
from lightning_audiorl.strategies.parts import NEEDED, Part, module_parts
from lightning_audiorl.strategies.phases import PHASES, Phase, PhaseClock
from lightning_audiorl.strategies.placement import Placement
from lightning_audiorl.strategies.single import PhaseSingleDevice

for _name, _strategy in (
    ("phase_single", PhaseSingleDevice),
    ("phase_ddp", PhaseDDP),
    ("phase_fsdp", PhaseFSDP),
):
    if _name not in StrategyRegistry.available_strategies():
        StrategyRegistry.register(_name, _strategy, description=str(_strategy.__doc__))

__all__ = [
    "NEEDED",
    "PHASES",
    "Ledger",
    "Part",
    "Phase",
    "PhaseClock",
    "PhaseDDP",
    "PhaseFSDP",
    "PhaseMixin",
    "PhaseSingleDevice",
    "Placement",
    "PlainStrategy",
    "RLStrategy",
    "module_parts",
    "rl_strategy",
]
