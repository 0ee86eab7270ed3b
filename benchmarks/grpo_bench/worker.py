"""A process that runs one system: it is told which case to open, and then every single step."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

import torch

from grpo_bench.case import Case
from grpo_bench.driver import Driver

SYSTEMS = ("ours", "naive", "trl", "trl_as_shipped")


def _serve(
    system: str, case: Case, model: str, driver: Driver, placement: dict[str, Any] | None
) -> None:
    if system.startswith("trl"):
        from grpo_bench import trl_side

        trl_side.serve(case, model, driver, as_shipped=system == "trl_as_shipped")
        return
    from grpo_bench import ours

    strategy: Any = "auto"
    if placement is not None:
        from lightning_audiorl.strategies import PhaseSingleDevice

        strategy = PhaseSingleDevice(**placement)
    ours.serve(case, model, driver, naive=system == "naive", strategy=strategy)


def main(system: str, device: str) -> None:
    """Answer {"do": "open", "case": ..., "model": ..., "threads": ..., "placement": ...} and what `Driver` knows."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    driver = Driver(sys.stdin, answers, device)
    while (command := driver.read())["do"] == "open":
        if command["threads"]:
            torch.set_num_threads(command["threads"])
        _serve(system, Case(**command["case"]), command["model"], driver, command.get("placement"))
        gc.collect()
        driver.answer(closed=True)
