"""Two processes over gloo on data that lies in shards: their rows are apart, and together those of one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.data.layouts import CASES, make_clips
from tests.data.rank_worker import BATCH_SIZE, KINDS, NUM_STEPS, epoch

ROOT = Path(__file__).parents[2]
SOURCES: dict[str, tuple[str, dict[str, str]]] = {
    "nemo": (
        "TarShards",
        {"shards": "{}/audio_{{0..1}}.tar", "manifest": "{}/tarred_audio_manifest.json"},
    ),
    "webdataset": ("TarShards", {"shards": "{}"}),
    "hf": ("HfDataset", {"path": "{}", "split": "train"}),
    "cuts": ("LhotseCuts", {"cuts": "{}"}),
    "shar": ("LhotseCuts", {"cuts": "{}"}),
}
Epoch = list[list[list[str]]]
Ranks = list[dict[str, dict[str, Epoch]]]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, dict[str, str]]]:
    """Each layout written once, as what its class takes."""
    folder = tmp_path_factory.mktemp("sets")
    clips = make_clips(folder / "clips")
    made = {}
    for name, (kind, settings) in SOURCES.items():
        root = CASES[name].write(folder / name, clips)
        given = {key: value.format(root) for key, value in settings.items()}
        made[name] = (kind, {**given, "cache": str(folder / "cache")})
    return made


@pytest.fixture(scope="module")
def ranks(
    sources: dict[str, tuple[str, dict[str, str]]], tmp_path_factory: pytest.TempPathFactory
) -> Ranks:
    """What each of two processes read of all sources."""
    folder = tmp_path_factory.mktemp("ranks")
    given = folder / "sources.json"
    given.write_text(json.dumps(sources))
    processes = []
    for rank in range(2):
        command = [sys.executable, "-m", "tests.data.rank_worker", str(rank)]
        command += [str(folder / "store"), str(given), str(folder / f"{rank}.json")]
        processes.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", SOURCES)
def test_the_rows_of_two_ranks_are_those_of_one_process(
    name: str, sources: dict[str, tuple[str, dict[str, str]]], ranks: Ranks
) -> None:
    kind, settings = sources[name]
    whole = epoch(KINDS[kind](**settings), 0)

    first, second = (rank[name]["0"] for rank in ranks)
    assert len(whole) == len(first) == len(second) == NUM_STEPS
    for step, both in enumerate(zip(first, second, strict=True)):
        assert [len(part) for part in both] == [BATCH_SIZE // 2] * 2
        assert sorted([*both[0], *both[1]]) == sorted(whole[step])

    # In an epoch every row comes once, on one of them: no clip is repeated to fill a rank.
    seen = [row_id for part in (first, second) for batch in part for row_id, *_ in batch]
    assert len(seen) == len(set(seen)) == 24


@pytest.mark.parametrize("name", SOURCES)
def test_loader_processes_change_nothing_on_any_rank(name: str, ranks: Ranks) -> None:
    for rank in ranks:
        found: dict[str, Any] = rank[name]
        assert found["2"] == found["0"]
