"""This build against an earlier one, side by side: the same settings must give the same numbers, bit for bit.

    python benchmarks/compare_builds.py                      # everything: some minutes on one CPU core
    python benchmarks/compare_builds.py --only grpo --only sft --cache /tmp/base

The earlier build is a clone of this repository at --base, in a temporary folder. Each scenario of
``benchmarks/compare/*.yaml`` is a run of a few steps of tiny models, made by either build in a process of its own, with
the same interpreter and one thread. What the runs left is compared: metrics, texts, weights, optimizer, evaluations.
Where a scenario has ``resume``, the present build also goes on from the earlier build's checkpoint of that step, and
must end where the earlier build's whole run ended. Exit code 1 on any difference.
"""

from __future__ import annotations

import argparse
import fcntl
import fnmatch
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from compare.results import KINDS, Comparison, Table, after, compare, read
from compare.scenarios import FOLDER, MEANT, Scenario, scenarios

#: The last commit before the folders were turned over.
BASE = "a3a158b"
_WORKER = FOLDER / "worker.py"


# The present build may log metrics that the earlier one did not; a run's report in its checkpoint has them too.
GROWING_KINDS = ("metrics", "evaluations", "checkpoint")


def git(root: Path, *args: str) -> str:
    """What git says in ``root``."""
    done = subprocess.run(
        ["git", "-C", str(root), *args], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"git {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout.strip()


def clone(root: Path, commit: str, folder: Path) -> None:
    """The repository's own history at ``commit``, as a folder of its own."""
    git(root, "clone", "--quiet", "--no-hardlinks", "--no-checkout", str(root), str(folder))
    git(folder, "checkout", "--quiet", "--detach", commit)


@dataclass(frozen=True)
class Build:
    """Where a build's code is, and where its runs go.

    Args:
        root: the repository.
        runs: one folder per run.
    """

    root: Path
    runs: Path

    def run(self, jobs: Sequence[dict[str, Any]]) -> dict[str, str]:
        """Run all jobs; returns what went wrong, by folder.

        A job that takes its process down, or hangs, fails alone: the others get a new process.
        """
        failed: dict[str, str] = {}
        for devices in sorted({job["devices"] for job in jobs}):
            waiting = [job for job in jobs if job["devices"] == devices]
            while waiting:
                said = self._start(waiting)
                for job in waiting:
                    folder = Path(job["folder"])
                    if (folder / "error").exists():
                        failed[job["folder"]] = (folder / "error").read_text()
                left = [
                    job
                    for job in waiting
                    if job["folder"] not in failed and not is_done(Path(job["folder"]))
                ]
                if left and len(left) == len(waiting):
                    failed[left[0]["folder"]] = said
                    left = left[1:]
                waiting = left
        return failed

    def _start(self, jobs: Sequence[dict[str, Any]]) -> str:
        """One process for all jobs (or the first of several, which Lightning starts); returns its last words."""
        cuts = {"LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR", "NODE_RANK", "WORLD_SIZE"}
        environment = {name: value for name, value in os.environ.items() if name not in cuts}
        environment |= {
            "PYTHONPATH": str(self.root),
            # The worker's own folder is not to stand before the build.
            "PYTHONSAFEPATH": "1",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(list(jobs), file)
            file.flush()
            command = [sys.executable, str(_WORKER), str(self.root), file.name]
            with tempfile.TemporaryFile("w+") as output:
                process = subprocess.Popen(
                    command, env=environment, stdout=output, stderr=output, start_new_session=True
                )
                try:
                    process.wait(timeout=120 + 120 * len(jobs))
                    said = f"ended with code {process.returncode}"
                except subprocess.TimeoutExpired:
                    said = "hung"
                finally:
                    _end(process)
                output.seek(0)
                return f"{said}\n{output.read()[-3000:]}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


def is_done(folder: Path) -> bool:
    """Whether the run in ``folder`` came to its end."""
    return (folder / "done").exists()


def job(scenario: Scenario, fixtures: Path, folder: Path, *args: str) -> dict[str, Any]:
    """What the worker is told of a scenario; its folder is new."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(scenario.text(fixtures))
    given = ["fit", "--config", str(folder / "config.yaml"), *args]
    return {"folder": str(folder), "args": given, "devices": scenario.devices}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else has the cache inside."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def base_key() -> str:
    """Other fixtures, another torch or another processor give other numbers."""
    parts = [(FOLDER / name).read_text() for name in ("fixtures.py", "worker.py")]
    parts += [
        torch.__version__,
        platform.platform(),
        sys.version,
        torch.backends.cpu.get_cpu_capability(),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def run_base(base: Build, root: Path, commit: str, chosen: Sequence[Scenario]) -> dict[str, str]:
    """Clone, make the fixtures and run what is not there yet; returns what went wrong, by folder."""
    if not (base.root / ".git").exists():
        clone(root, commit, base.root)
    fixtures = base.runs / "fixtures"
    jobs = []
    if not is_done(fixtures):
        shutil.rmtree(fixtures, ignore_errors=True)
        fixtures.mkdir(parents=True)
        jobs.append({"folder": str(fixtures), "args": ["fixtures"], "devices": 1})
    for scenario in chosen:
        folder = base.runs / scenario.name
        config = folder / "config.yaml"
        is_same = config.exists() and config.read_text() == scenario.text(fixtures)
        if not (is_done(folder) and is_same):
            jobs.append(job(scenario, fixtures, folder))
    return base.run(jobs) if jobs else {}


def run_present(present: Build, base: Build, chosen: Sequence[Scenario]) -> dict[str, str]:
    """Run every scenario, and go on from the base build's checkpoints; returns what went wrong, by folder."""
    fixtures = base.runs / "fixtures"
    jobs = []
    for scenario in chosen:
        if not is_done(base.runs / scenario.name):
            continue
        jobs.append(job(scenario, fixtures, present.runs / scenario.name))
        if scenario.resume:
            checkpoint = (
                base.runs
                / scenario.name
                / "run"
                / "checkpoints"
                / f"step-{scenario.resume:06d}.ckpt"
            )
            folder = present.runs / f"{scenario.name}+resume"
            jobs.append(job(scenario, fixtures, folder, "--ckpt_path", str(checkpoint)))
    return present.run(jobs)


def without(table: Table, ignored: Sequence[str]) -> Table:
    """Leave out the values whose ``kind/name`` fits any of the patterns, and kinds of which nothing is left."""
    kept: Table = {}
    for kind, values in table.items():
        left = {
            name: value
            for name, value in values.items()
            if not any(fnmatch.fnmatch(f"{kind}/{name}", pattern) for pattern in ignored)
        }
        # A kind that had no values to begin with stays, and is told.
        if left or not values:
            kept[kind] = left
    return kept


def show(name: str, results: dict[str, Comparison]) -> None:
    """A line for all kinds that are equal, one for each other kind, and the names that only one build has."""
    equal = [f"{kind} {result.num}" for kind, result in results.items() if result.is_equal]
    if equal:
        print(f"{name:24s} equal      {', '.join(equal)}")
    rounded = max((result.largest for result in results.values() if result.is_equal), default=0.0)
    if rounded:
        print(f"{name:24s} meant      rounding, at most by {rounded:.3g}")

    for kind, result in results.items():
        if result.is_equal:
            if result.only_present:
                print(f"{name:24s} new        {kind}: {', '.join(result.only_present[:6])}")
            continue
        said = f"{kind}: {result.num_differing} of {result.num} values"
        if result.num_differing:
            said += f", at most by {result.largest:.3g} ({result.where})"
        print(f"{name:24s} DIFFERENT  {said}")
        for build, names in (("base", result.only_base), ("present", result.only_present)):
            if names:
                more = f" and {len(names) - 6} more" if len(names) > 6 else ""
                print(f"{'':35s} only in {build}: {', '.join(names[:6])}{more}")


def last_words(error: str, num_lines: int = 12) -> str:
    """The end of a traceback, where its reason stands."""
    return "\n".join(f"    {line}" for line in error.splitlines()[-num_lines:])


def compare_all(
    chosen: Sequence[Scenario],
    base: Build,
    present: Build,
    failed: dict[str, str],
    ignored: Sequence[str],
) -> bool:
    """Print these lines of the table; returns whether everything is equal."""
    all_equal = True
    for scenario in chosen:
        for suffix in ("", "+resume") if scenario.resume else ("",):
            name = scenario.name + suffix
            base_run, present_run = base.runs / scenario.name, present.runs / name
            wrong = [
                (b, str(f))
                for b, f in (("base", base_run), ("present", present_run))
                if str(f) in failed
            ]
            for build, folder in wrong:
                print(f"{name:24s} FAILED     in {build}:\n{last_words(failed[folder])}")
            if wrong:
                all_equal = False
                continue

            tables = [read(base_run / "run"), read(present_run / "run", is_resumed=bool(suffix))]
            if suffix:
                tables = [after(table, scenario.resume, scenario.num_steps) for table in tables]
            if scenario.meant:
                print(f"{name:24s} meant      {', '.join(scenario.meant)}")
            left_out = [*ignored, *MEANT, *scenario.meant]
            tables = [without(table, left_out) for table in tables]
            results = {}
            for kind in KINDS:
                # All of it is meant to differ.
                if kind not in tables[0]:
                    continue
                present_values = tables[1].get(kind, {})
                results[kind] = compare(
                    tables[0][kind], present_values, may_grow=kind in GROWING_KINDS
                )
                results[kind].rounding = scenario.rounding
            show(name, results)
            all_equal = all_equal and all(result.is_equal for result in results.values())
    return all_equal


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--base", default=BASE, metavar="COMMIT", help=f"the earlier build; default {BASE}"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a scenario, or a pattern of such",
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="leave the runs of both builds here"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="keep the earlier build and its runs"
    )
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave out kind/name, such as 'metrics/kl@*'",
    )
    return parser.parse_args()


def main() -> None:
    """Entry point."""
    args = arguments()
    known = scenarios()
    if args.list:
        for scenario in known.values():
            resumes = f" (resumes at step {scenario.resume})" if scenario.resume else ""
            print(f"{scenario.name:22s} {scenario.about}{resumes}")
        return

    names = [
        name
        for name in known
        if not args.only or any(fnmatch.fnmatch(name, only) for only in args.only)
    ]
    missing = [only for only in args.only if not fnmatch.filter(known, only)]
    if missing:
        raise SystemExit(f"--only: no scenario {', '.join(missing)}; see --list")

    # A run that is asked to stop takes its workers with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [known[name] for name in names]
    root = Path(git(Path(__file__).parent, "rev-parse", "--show-toplevel"))
    commit = git(root, "rev-parse", "--verify", f"{args.base}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="compare_builds_") as temporary:
        out = (args.keep or Path(temporary)).absolute()
        base_folder = (
            args.cache.absolute() if args.cache else out
        ) / f"base-{commit[:12]}-{base_key()}"
        base = Build(base_folder / "build", base_folder / "runs")
        present = Build(root, out / "present")
        with locked(base_folder):
            failed = run_base(base, root, commit, chosen)

        # What is known is said at once, also where the output goes to a file.
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        print(f"{'scenario':24s} {'':10s} values compared, by kind")
        is_equal = True
        for devices in sorted({scenario.devices for scenario in chosen}):
            group = [scenario for scenario in chosen if scenario.devices == devices]
            failed |= run_present(present, base, group)
            is_equal &= compare_all(group, base, present, failed, args.ignore)

    print("everything is equal" if is_equal else "NOT EQUAL")
    sys.exit(0 if is_equal else 1)


if __name__ == "__main__":
    main()
