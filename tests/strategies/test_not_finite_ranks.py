"""What is not finite on one rank ends the run of all ranks, with the same words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.mark.fault(
    "Numbers that are none",
    "a weight or gradients that are NaN on one rank of two, whole or sharded",
    "all ranks end alike, and name the same tensor",
)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("strategy", ["phase_ddp", "phase_fsdp"])
def test_all_ranks_end_alike(strategy: str, tmp_path: Path) -> None:
    out = str(tmp_path / "said")
    ours = ("LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR")
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    command = [sys.executable, "-m", "tests.strategies.lost_worker", strategy, out]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    first, second = (json.loads(Path(f"{out}.{rank}").read_text()) for rank in (0, 1))
    assert first == second
    assert "RL step 5: 4 updates in a row" in first["gradient"]
    assert "RL step 2: weights are NaN or infinite, first in policy." in first["weight"]
