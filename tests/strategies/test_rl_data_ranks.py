"""Two processes over one built mix: disjoint rows, the same mix as one process has, refills on every rank."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.data.mixes import write_noise, write_rows
from tests.strategies.rl_data_worker import NUM_STEPS

pytestmark = pytest.mark.timeout(900)  # two processes on a busy machine
ROOT = Path(__file__).parents[2]


def write_set(folder: Path, name: str, num_rows: int, seed: int) -> None:
    rows = [
        {
            "id": f"{name}{i}",
            "audio_filepath": str(write_noise(folder / name / f"{i}.wav", seed + i, 0.3)),
            "text": f"{i}",
        }
        for i in range(num_rows)
    ]
    write_rows(folder / f"{name}.jsonl", rows)


def steps(devices: int, folder: Path) -> dict[str, Any]:
    """What the ranks of one run saw."""
    out = folder / f"seen{devices}.json"
    environment = {
        k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR")
    }
    command = [
        sys.executable,
        "-m",
        "tests.strategies.rl_data_worker",
        str(devices),
        str(folder),
        str(out),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    write_set(folder, "train", 24, 0)
    write_set(folder, "dev", 3, 1000)
    return {devices: steps(devices, folder) for devices in (2, 1)}


def test_ranks_see_disjoint_rows_of_the_mix_that_one_process_has(
    seen: dict[int, dict[str, Any]],
) -> None:
    assert seen[1]["folder"] == seen[2]["folder"]
    for alone, shared in zip(seen[1]["steps"], seen[2]["steps"], strict=True):
        (whole,), (first, second) = alone["ranks"], shared["ranks"]
        assert len(first["batch"]) == len(second["batch"]) == 2
        assert not set(first["batch"]) & set(second["batch"])
        assert sorted(first["batch"] + second["batch"]) == sorted(whole["batch"])
    assert len(seen[2]["steps"]) == NUM_STEPS


def test_ranks_refill_with_rows_of_their_own(seen: dict[int, dict[str, Any]]) -> None:
    """Rows with an even number teach nothing and are replaced where the stream has others, on both ranks alike."""
    for run in seen.values():
        for step in run["steps"]:
            trained = [name for rank in step["ranks"] for name in rank["trained"]]
            assert len(set(trained)) == len(trained) == 4
            dull = [
                name for name in trained if int(name.split("@")[0].removeprefix("train")) % 2 == 0
            ]
            assert len(dull) == step["refill"]["refill/left"]
            assert (
                step["refill"]["refill/flat"]
                == step["refill"]["refill/taken"] + step["refill"]["refill/left"]
            )
    assert sum(step["refill"]["refill/taken"] for step in seen[2]["steps"]) > 0
