"""Which rows of a set a metric is over, where that is not all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_audiorl.engine.distributed import all_reduce
from lightning_audiorl.strategies import rl_strategy


def count_left_out(
    results: Mapping[str, dict[str, float]], kind: str, num_bad_rows: Mapping[str, int]
) -> None:
    """Add ``skipped_rows`` to the metrics of sets that had rows left out.

    Args:
        results: metrics by set.
        kind: val or test.
        num_bad_rows: of a data module, by names such as ``val/short``.

    Example:
        >>> results = {"short": {"wer": 0.1}, "long": {"wer": 0.2}}
        >>> count_left_out(results, "val", {"val/short": 0, "val/long": 3})
        >>> results["short"], results["long"]
        ({'wer': 0.1}, {'wer': 0.2, 'skipped_rows': 3.0})
    """
    for set_name, metrics in results.items():
        num_left_out = num_bad_rows.get(f"{kind}/{set_name}", 0)
        if num_left_out:
            metrics["skipped_rows"] = float(num_left_out)


def say_limits(
    trainer: Trainer, kind: str, num_seen: Mapping[str, int], said: dict[str, str]
) -> None:
    """Say of how many rows the metrics are where Trainer's ``limit_val_batches`` or ``limit_test_batches`` is set.

    Args:
        trainer: of the run.
        kind: val or test.
        num_seen: rows that this rank has evaluated, by set.
        said: the last line of each set, which is said once; changed.
    """
    setting = f"limit_{kind}_batches"
    limit = getattr(trainer, setting)
    data: Any = getattr(trainer, "datamodule", None)
    if is_whole(limit) or trainer.sanity_checking or not hasattr(data, "rows"):
        return

    for set_name, num_of_rank in num_seen.items():
        num_rows = int(all_reduce(rl_strategy(trainer.strategy), float(num_of_rank)))
        num_all = len(data.rows(f"{kind}/{set_name}"))
        line = f"{kind}/{set_name}: metrics are over {num_rows} of {num_all} rows, a draw (trainer.{setting}: {limit})"
        if num_rows < num_all and said.get(set_name) != line:
            said[set_name] = line
            rank_zero_info(line)


def is_whole(limit: int | float) -> bool:
    """Whether a limit of Trainer's lets all batches through: 1.0 is all of them, 1 is the first.

    Example:
        >>> is_whole(1.0), is_whole(1), is_whole(0.5)
        (True, False, False)
    """
    return isinstance(limit, float) and limit >= 1.0
