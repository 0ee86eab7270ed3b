"""How long a step and a start take, this build beside an earlier one, in one run.

    python benchmarks/build_ratio.py                       # everything: about a quarter of an hour on one CPU core
    python benchmarks/build_ratio.py --only 'grpo*' --cache /tmp/base

The earlier build is a clone of this repository at --base, in a temporary folder. Each build has a process of its own,
with its own code alone. They take one step in turn, and which goes first changes every step; a round is one pair of
such processes. The ratio is that of the medians over all steps; its interval is the middle 95 % of a bootstrap over
rounds and, within them, pairs of steps. CPU seconds of the process decide, because other jobs of the machine lengthen
wall seconds first. Exit code 1 if the lower end of an interval is above --limit; never with --tiny.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compare_builds import BASE, Build, base_key, clone, git, last_words, locked, run_base
from grpo_bench.case import build_model
from grpo_bench.runner import Worker, check_work, environment
from grpo_step import machine
from ratio.cases import CASES, AnyCase, FitCase, StartCase, StepCase, tiny
from ratio.intervals import Pair, Ratio, ratio

_FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Plan:
    """What holds for every case.

    Args:
        base, present: the repositories of the two builds.
        work: a folder for models and runs.
        fixtures: of compare_builds.py's scenarios.
        threads: of torch.
        rounds: pairs of processes; of a start-up, so many times ``starts``.
        warmup: steps of every round that do not count.
        starts: of a process in every round.
    """

    base: Path
    present: Path
    work: Path
    fixtures: Path
    threads: int
    rounds: int
    warmup: int
    starts: int


@dataclass
class Times:
    """Pairs of seconds, by round."""

    cpu: list[list[Pair]] = field(default_factory=list)
    wall: list[list[Pair]] = field(default_factory=list)

    @property
    def num_pairs(self) -> int:
        """Over all rounds."""
        return sum(map(len, self.cpu))

    def add(self, base: Sequence[dict[str, float]], present: Sequence[dict[str, float]]) -> None:
        """A round's answers, step by step."""
        for name, rounds in (("cpu_s", self.cpu), ("wall_s", self.wall)):
            pairs = zip(base, present, strict=True)
            rounds.append([Pair(first[name], second[name]) for first, second in pairs])


@dataclass
class FitWorker(Worker):
    """The parent's side of a process that runs ``audiorl fit``."""

    def command(self) -> list[str]:
        """What is started."""
        return [sys.executable, str(_FOLDER / "ratio" / "worker.py"), str(self.threads)]


def ask(worker: Worker, **command: Any) -> dict[str, Any]:
    """The worker's answer.

    Raises:
        RuntimeError: when it has died, with its last words.
    """
    try:
        return worker.ask(**command)
    except RuntimeError as error:
        said = worker.log.read_text() if worker.log else ""
        raise RuntimeError(f"{error} ({worker.root}):\n{last_words(said)}") from error


def open_worker(stack: ExitStack, case: StepCase | FitCase, root: Path, plan: Plan) -> Worker:
    """A process of the build in ``root`` that waits before its first step."""
    folder = Path(tempfile.mkdtemp(dir=plan.work))
    log = folder / "log"
    if isinstance(case, StepCase):
        worker = Worker("ours", "cpu", plan.threads, root, log)
        stack.callback(worker.quit)
        model = "" if case.case.audio_s else str(build_model(case.case, plan.work / "models"))
        sizes = case.case.as_dict()
        ask(worker, do="open", case=sizes, model=model, threads=plan.threads)
        return worker

    worker = FitWorker(case.scenario, "cpu", plan.threads, root, log)
    stack.callback(worker.quit)
    config = folder / "config.yaml"
    config.write_text(case.text(str(plan.fixtures), str(folder / "run")))
    ask(worker, do="open", config=str(config))
    return worker


def take_step(worker: Worker, case: StepCase | FitCase) -> dict[str, float]:
    """Seconds of one step, from the command to the answer."""
    began = time.perf_counter()
    answer = ask(worker, do="step")
    wall_s = time.perf_counter() - began
    if isinstance(case, StepCase):
        check_work("ours", case.case, answer)
    return {"cpu_s": answer["cpu_s"], "wall_s": wall_s}


def time_steps(case: StepCase | FitCase, plan: Plan) -> Times:
    """Both builds step in turn, in new processes every round."""
    times = Times()
    for number in range(plan.rounds):
        with ExitStack() as stack:
            roots = [plan.base, plan.present]
            # The one that starts first is not always the same.
            if number % 2:
                roots.reverse()
            workers = {root: open_worker(stack, case, root, plan) for root in roots}
            taken: dict[Path, list[dict[str, float]]] = {root: [] for root in roots}
            for step in range(plan.warmup + case.steps):
                for root in roots if step % 2 == 0 else reversed(roots):
                    taken[root].append(take_step(workers[root], case))
        times.add(taken[plan.base][plan.warmup :], taken[plan.present][plan.warmup :])
    return times


def start(case: StartCase, root: Path, plan: Plan) -> dict[str, float]:
    """Seconds of a process from start to end.

    Raises:
        RuntimeError: when it fails.
    """
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", case.code],
            cwd=root,
            env=environment(root, plan.threads),
            stdout=output,
            stderr=output,
        )
        # Not `wait`: it does not say what the process used.
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{case.about} of {root}:\n{last_words(output.read())}")
    return {"cpu_s": used.ru_utime + used.ru_stime, "wall_s": wall_s}


def time_starts(case: StartCase, plan: Plan) -> Times:
    """Both builds start in turn; every pair is a round, because every start is a process of its own."""
    roots = [plan.base, plan.present]
    # The first start compiles.
    for root in roots:
        start(case, root, plan)
    times = Times()
    for number in range(plan.rounds * plan.starts):
        order = roots if number % 2 == 0 else reversed(roots)
        taken = {root: start(case, root, plan) for root in order}
        times.add([taken[plan.base]], [taken[plan.present]])
    return times


def time_case(case: AnyCase, plan: Plan) -> Times:
    """Seconds of both builds."""
    return time_starts(case, plan) if isinstance(case, StartCase) else time_steps(case, plan)


def check_build(root: Path) -> None:
    """A process started for ``root`` imports that build.

    Raises:
        SystemExit: it imports another one.
    """
    code = "import lightning_audiorl; print(lightning_audiorl.__file__)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=root, env=environment(root), capture_output=True, text=True, check=False
    )
    if not done.stdout or not Path(done.stdout.strip()).is_relative_to(root):
        said = done.stdout.strip() or last_words(done.stderr)
        raise SystemExit(f"the build of {root} was asked for, and this was imported: {said}")


def line(name: str, unit: str, num: int, measured: Ratio) -> str:
    """One line of the table."""
    interval = f"[{measured.low:.3f}, {measured.high:.3f}]"
    seconds = f"{measured.base:9.4f} {measured.present:9.4f}"
    return f"{name:16s} {unit:4s} {seconds}   {measured.value:.3f} {interval}   {num}"


def compare_cases(chosen: dict[str, AnyCase], plan: Plan, limit: float) -> list[str]:
    """Print the table; returns what is slower beyond its interval."""
    print(f"{'case':16s} {'':4s} {'base s':>9s} {'present s':>9s}   ratio [95 %]           pairs")
    slower = []
    for name, case in chosen.items():
        times = time_case(case, plan)
        cpu, wall = ratio(times.cpu), ratio(times.wall)
        print(line(name, "CPU", times.num_pairs, cpu))
        print(line("", "wall", times.num_pairs, wall))
        if cpu.is_slower(limit):
            slower.append(name)
    return slower


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--base", default=BASE, metavar="COMMIT", help=f"the earlier build; default {BASE}"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="a case, or a pattern of such"
    )
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the earlier build here")
    parser.add_argument("--threads", type=int, default=1, help="of torch; default 1")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of processes; default 3")
    parser.add_argument("--warmup", type=int, default=3, help="steps that do not count; default 3")
    parser.add_argument("--starts", type=int, default=3, help="starts in every round; default 3")
    parser.add_argument("--limit", type=float, default=1.02, help="of the ratio; default 1.02")
    parser.add_argument(
        "--tiny", action="store_true", help="sizes that end in seconds; the numbers mean nothing"
    )
    return parser.parse_args()


def chosen_cases(patterns: Sequence[str], is_tiny: bool) -> dict[str, AnyCase]:
    """The cases that fit any of the patterns; all of them without a pattern.

    Raises:
        SystemExit: a pattern fits none.
    """
    missing = [pattern for pattern in patterns if not fnmatch.filter(CASES, pattern)]
    if missing:
        raise SystemExit(f"--only: no case {', '.join(missing)}; see --list")
    return {
        name: tiny(case) if is_tiny else case
        for name, case in CASES.items()
        if not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    }


def prepare_base(base: Build, root: Path, commit: str, needs_fixtures: bool) -> None:
    """Clone the base build; it makes what the scenarios read.

    Raises:
        SystemExit: it could not.
    """
    if not needs_fixtures:
        if not (base.root / ".git").exists():
            clone(root, commit, base.root)
        return
    failed = run_base(base, root, commit, [])
    for said in failed.values():
        raise SystemExit(f"the base build made no fixtures:\n{last_words(said)}")


def header(commit: str, plan: Plan) -> str:
    """What the numbers depend on."""
    where: dict[str, Any] = machine("cpu")
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    builds = f"base {commit[:7]}, present {where['commit']}"
    rounds = f"{plan.rounds} rounds of {plan.warmup} steps of warm-up and those that count"
    return f"{builds}; {where['processor']}, {plan.threads} thread(s); {versions}; {rounds}"


def main() -> None:
    """Entry point."""
    args = arguments()
    if args.list:
        for name, case in CASES.items():
            print(f"{name:16s} {case.about}")
        return

    chosen = chosen_cases(args.only, args.tiny)
    root = Path(git(_FOLDER, "rev-parse", "--show-toplevel"))
    commit = git(root, "rev-parse", "--verify", f"{args.base}^{{commit}}")
    # What is known is said at once, also where the output goes to a file.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory(prefix="build_ratio_") as temporary:
        work = Path(temporary)
        kept = (args.cache or work).absolute() / f"base-{commit[:12]}-{base_key()}"
        base = Build(kept / "build", kept / "runs")
        with locked(kept):
            needs_fixtures = any(isinstance(case, FitCase) for case in chosen.values())
            prepare_base(base, root, commit, needs_fixtures)
        for build in (base.root, root):
            check_build(build)

        plan = Plan(
            base=base.root,
            present=root,
            work=work,
            fixtures=base.runs / "fixtures",
            threads=args.threads,
            rounds=1 if args.tiny else args.rounds,
            warmup=1 if args.tiny else args.warmup,
            starts=1 if args.tiny else args.starts,
        )
        print(header(commit, plan))
        slower = compare_cases(chosen, plan, args.limit)

    if args.tiny:
        print("tiny: the numbers mean nothing")
        return
    said = f"slower than {args.limit} beyond the interval: {', '.join(slower)}"
    print(said if slower else f"no case is slower than {args.limit} beyond its interval")
    sys.exit(1 if slower else 0)


if __name__ == "__main__":
    main()
