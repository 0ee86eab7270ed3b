"""What an RL step cost: seconds of its phases, bytes on the device, encoder outputs that were found or computed."""

from __future__ import annotations

from lightning_audiorl.models.encoder_cache import EncoderCache
from lightning_audiorl.strategies.ledger import Ledger
from lightning_audiorl.strategies.phases import PhaseClock


def step_costs(
    clock: PhaseClock, ledger: Ledger | None, encoder_cache: EncoderCache | None
) -> tuple[dict[str, float], str | None]:
    """Metrics of the step that ends, by log key, and the ledger's table; all of them begin anew.

    Args:
        clock: of the phases.
        ledger: of the strategy; None where it places nothing, and then there is no table.
        encoder_cache: of the policy; None where it has none.

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

    table: str | None = None
    if ledger is not None:
        if encoder_cache is not None:
            ledger.host_bytes["encoder cache"] = encoder_cache.num_bytes
        metrics |= ledger.metrics()
        table = ledger.table()
        ledger.reset()

    if encoder_cache is not None:
        metrics |= encoder_cache.metrics()
        encoder_cache.reset()
    return metrics, table
