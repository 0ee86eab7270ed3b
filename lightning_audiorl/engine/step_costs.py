"""What an RL step cost: seconds of its phases, bytes on the device, encoder outputs that were found or computed."""

from __future__ import annotations

from typing import Protocol

from lightning_audiorl.engine.rollout import Sampler
from lightning_audiorl.models.encoder_cache import EncoderCache
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.serving import Engine
from lightning_audiorl.strategies import RLStrategy
from lightning_audiorl.strategies.ledger import Ledger
from lightning_audiorl.strategies.phases import PhaseClock


class CostlyRun(Protocol):
    """What there is to know of the run: an `RLModule`."""

    clock: PhaseClock
    policy: Policy
    sampler: Sampler

    @property
    def strategy(self) -> RLStrategy:
        """Where things live."""


def run_costs(run: CostlyRun) -> tuple[dict[str, float], str | None]:
    """`step_costs` of a run, and hotwords that its prompts had no room for."""
    metrics, table = step_costs(
        run.clock, run.strategy.ledger, run.policy.encoder_cache, run.sampler.engine
    )
    if run.policy.num_hotwords_cut:
        metrics["hotwords/cut"] = float(run.policy.num_hotwords_cut)
        run.policy.num_hotwords_cut = 0
    return metrics, table


def step_costs(
    clock: PhaseClock,
    ledger: Ledger | None,
    encoder_cache: EncoderCache | None,
    engine: Engine | None = None,
) -> tuple[dict[str, float], str | None]:
    """Metrics of the step that ends, by log key, and the ledger's table; all of them begin anew.

    Args:
        clock: of the phases.
        ledger: of the strategy; None where it places nothing, and then there is no table.
        encoder_cache: of the policy; None where it has none.
        engine: that sampled; None where it was our own sampler. What it took to start, push and check stands apart from
            the rollout's seconds.

    Example:
        >>> clock = PhaseClock()
        >>> with clock.enter("encode"):
        ...     pass
        >>> metrics, table = step_costs(clock, None, EncoderCache())
        >>> list(metrics), table
        (['seconds/encode', 'encoder_cache/gib'], None)
    """
    metrics = {f"seconds/{name}": seconds for name, seconds in clock.seconds.items()}
    clock.reset()
    if engine is not None:
        costs = engine.costs()
        apart = sum(value for name, value in costs.items() if name.startswith("seconds/"))
        metrics["seconds/rollout"] = metrics.get("seconds/rollout", 0.0) - apart
        metrics |= costs

    table: str | None = None
    if ledger is not None:
        if encoder_cache is not None:
            ledger.host_bytes["encoder cache"] = encoder_cache.num_bytes
        if engine is not None and not engine.is_local:
            ledger.host_bytes["pushed weights"] = engine.host_bytes
        if engine is not None:
            kept, in_rollout = engine.copied_bytes()
            if in_rollout:
                ledger.add_copies(kept, in_rollout)
        metrics |= ledger.metrics()
        table = ledger.table()
        ledger.reset()

    if encoder_cache is not None:
        metrics |= encoder_cache.metrics()
        encoder_cache.reset()
    return metrics, table
