"""Two ranks over gloo, and the engines that they ask: the samples and updates of one process, whoever serves them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from tests.serving.listening import KEY, Counted, listening
from tests.strategies.test_ranks import alone, in_two, worst

pytestmark = pytest.mark.timeout(900)  # two processes on a busy machine
NUM_STEPS = 3
COMMON = {"family": "text_lm", "num_steps": NUM_STEPS}


#: Strategy, and how many engines the ranks are told of; 0 is one that each rank starts.
CASES = [("phase_ddp", 1), ("phase_ddp", 2), ("phase_ddp", 0), ("phase_fsdp", 1), ("phase_fsdp", 0)]
Seen = dict[tuple[str, int], tuple[dict[str, Any], list[Counted]]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """What each case gave, and its engines; all of them in one launch of two processes."""
    folder = tmp_path_factory.mktemp("engines")
    key_file = folder / "key"
    key_file.write_bytes(KEY)

    engines: list[list[Counted]] = []
    settings: list[dict[str, Any]] = []
    with ExitStack() as stack:
        for strategy, num in CASES:
            engines.append([Counted() for _ in range(num)])
            addresses = [stack.enter_context(listening(backend)) for backend in engines[-1]]
            engine = {"address": addresses, "key_file": str(key_file)} if addresses else {}
            settings.append({**COMMON, "strategy": strategy, "engine": engine})
        runs = in_two(folder, settings)
    return dict(zip(CASES, zip(runs, engines, strict=True), strict=True))


@pytest.fixture(scope="module")
def single() -> dict[str, Any]:
    return alone({**COMMON, "engine": {}})


@pytest.mark.parametrize("case", CASES, ids=[f"{name} {num}" for name, num in CASES])
def test_two_ranks_do_what_one_does_whoever_serves_them(
    case: tuple[str, int], seen: Seen, single: dict[str, Any]
) -> None:
    two, engines = seen[case]
    # A sample hangs on its keys: neither on its rank, nor on who else is asked.
    assert two["texts"] == single["texts"]
    for ours, theirs in zip(single["gradients"], two["gradients"], strict=True):
        assert worst(ours, theirs) < 1e-4
    for metrics in two["metrics"]:
        assert metrics["engine/mismatch_max"] < 1e-4
        assert metrics["engine/restarts"] == 0

    # One rank pushes to an engine that is shared, and each to one of its own.
    pushes = NUM_STEPS - 1
    samples = NUM_STEPS * (2 if len(engines) == 1 else 1)
    for engine in engines:
        assert engine.asked == {"load": 1, "push": pushes, "sample": samples}
