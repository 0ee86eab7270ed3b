"""Runs systems against each other: one process each, one step at a time, in alternating order."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grpo_bench.case import Case, build_model

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Contestant:
    """One system on one case.

    Args:
        name: in the results.
        system: of `worker.SYSTEMS`.
        case: what it runs.
        threads: of torch; 0 leaves its default.
        placement: arguments of `PhaseSingleDevice`; None is Lightning's own strategy. Ours only.
        root: the repository whose build runs; None is this one.
    """

    name: str
    system: str
    case: Case
    threads: int = 0
    placement: dict[str, Any] | None = None
    root: Path | None = None


def environment(root: Path, threads: int = 0) -> dict[str, str]:
    """Variables under which a process imports the package of ``root``, offline, with so many threads."""
    inherited = os.environ.get("PYTHONPATH")
    paths = [str(root)] + ([inherited] if inherited else [])
    variables = {
        "PYTHONPATH": os.pathsep.join(paths),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    if threads:
        variables |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return os.environ | variables


@dataclass
class Worker:
    """The parent's side of a `worker` process.

    Args:
        system: of `worker.SYSTEMS`.
        device: "cpu" or "cuda".
        threads: of torch; 0 leaves its default.
        root: the repository whose benchmarks and whose package run.
        log: a file for what the process says beside its answers; None is our stderr.
    """

    system: str
    device: str = "cpu"
    threads: int = 0
    root: Path = _ROOT
    log: Path | None = None
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        with ExitStack() as stack:
            log = stack.enter_context(self.log.open("w")) if self.log else None
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(self.root, self.threads),
            )

    def command(self) -> list[str]:
        """What is started."""
        entry = str(self.root / "benchmarks" / "grpo_step.py")
        return [sys.executable, entry, "--worker", self.system, "--device", self.device]

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its answer.

        Raises:
            RuntimeError: when the process has died; what it said is on stderr or in the log.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the worker of {self.system!r} ended with status {self.process.wait()}"
            )
        return json.loads(line)

    def open(self, contestant: Contestant, models: Path) -> None:
        model = "" if contestant.case.audio_s else str(build_model(contestant.case, models))
        self.ask(
            do="open",
            case=contestant.case.as_dict(),
            model=model,
            threads=contestant.threads,
            placement=contestant.placement,
        )

    def close(self) -> None:
        self.ask(do="close")

    def quit(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()


@contextmanager
def worker(
    system: str, device: str, threads: int = 0, root: Path | None = None
) -> Iterator[Worker]:
    """A worker that ends with the block."""
    started = Worker(system, device, threads, root or _ROOT)
    try:
        yield started
    finally:
        started.quit()


def compete(
    contestants: Sequence[Contestant],
    models: Path,
    device: str = "cpu",
    warmup: int = 2,
    steps: int = 5,
) -> dict[str, dict[str, Any]]:
    """Each contestant in a process of its own; they step in turn, every second round in reverse order.

    Returns:
        By name: what `summary` says, with the rate of a float32 product measured in the first one's process.
    """
    results: dict[str, list[dict[str, Any]]] = {contestant.name: [] for contestant in contestants}
    rates: list[float] = []
    with ExitStack() as stack:
        workers = {
            c.name: stack.enter_context(worker(c.system, device, c.threads, c.root))
            for c in contestants
        }
        for contestant in contestants:
            workers[contestant.name].open(contestant, models)
        for number in range(warmup + steps):
            for contestant in contestants if number % 2 == 0 else reversed(contestants):
                result = workers[contestant.name].ask(do="step")
                results[contestant.name].append(result)
                _say(contestant.name, number, result)
            rates.append(workers[contestants[0].name].ask(do="rate")["flops_per_s"])
        for started in workers.values():
            started.close()

    rate = statistics.median(rates[warmup:])
    return {
        contestant.name: summary(contestant, results[contestant.name], warmup)
        | {"product_flops_per_s": rate}
        for contestant in contestants
    }


def one_after_another(
    cases: Sequence[Contestant], models: Path, device: str = "cpu", warmup: int = 1, steps: int = 3
) -> dict[str, dict[str, Any]]:
    """Many cases of one system in one process: for growth curves, where starting a process each would take long."""
    out = {}
    with worker(cases[0].system, device) as started:
        for contestant in cases:
            started.open(contestant, models)
            results = []
            for number in range(warmup + steps):
                results.append(started.ask(do="step"))
                _say(contestant.name, number, results[-1])
            rate = started.ask(do="rate")["flops_per_s"]
            started.close()
            out[contestant.name] = summary(contestant, results, warmup) | {
                "product_flops_per_s": rate
            }
    return out


def _say(name: str, number: int, result: dict[str, Any]) -> None:
    phases = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in result["phases"].items())
    print(
        f"{name:28s} step {number}: {result['seconds']:8.2f} s  ({phases})",
        file=sys.stderr,
        flush=True,
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(
    contestant: Contestant, results: Sequence[dict[str, Any]], warmup: int
) -> dict[str, Any]:
    """Medians with spread over the steps after the warm-up; counts of the last step; largest memory of all steps."""
    kept, last = results[warmup:], results[-1]
    check_work(contestant.system, contestant.case, last)
    return {
        "system": contestant.system,
        "case": contestant.case.as_dict(),
        "threads": contestant.threads,
        "placement": contestant.placement,
        "steps": len(kept),
        "warmup": warmup,
        "seconds": spread([result["seconds"] for result in kept]),
        "all_seconds": [result["seconds"] for result in results],
        "phases": {
            name: spread([r["phases"].get(name, 0.0) for r in kept]) for name in last["phases"]
        },
        "added_bytes": max(result["added_bytes"] for result in results),
        "cpu_share": statistics.median(r["cpu_s"] / r["seconds"] for r in kept),
        "work": {
            name: last[name]
            for name in (
                "prompts",
                "completions",
                "generated",
                "optimizer_steps",
                "encoder_rows",
                "lm_tokens",
            )
        },
        "figures": last["figures"],
    }


def check_work(system: str, case: Case, result: dict[str, Any]) -> None:
    """Every system does the same work: B prompts of P tokens, B*G completions of T tokens, one optimizer step.

    The rollout computes a prompt once per group (ours) or once per sample (the others).

    Raises:
        RuntimeError: saying what differs.
    """
    expected = {
        "prompts": case.num_prompts,
        "completions": case.num_rows,
        "generated": case.num_rows * case.new_tokens,
        "optimizer_steps": 1,
    }
    shared = case.num_prompts if system == "ours" else case.num_rows
    if not case.audio_s:
        expected["rollout tokens"] = shared * case.prompt_tokens + case.num_rows * (
            case.new_tokens - 1
        )
    result = result | {"rollout tokens": result["lm_tokens"].get("rollout")}
    differing = {name: result[name] for name, value in expected.items() if result[name] != value}
    if differing:
        raise RuntimeError(
            f"{system}: a step did other work than expected: {differing}, expected {expected}"
        )
